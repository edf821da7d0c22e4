"""What PPO does when memory runs out, numbers leave the range, or replies are odd."""

from __future__ import annotations

import math

import pytest
import torch
from ppo_lab import equal, gradients, make_trainer, weights

from chatrlhf.errors import RoundError
from chatrlhf.models.base_model import BaseModel
from chatrlhf.training import ppo

# Memory


def small_memory(monkeypatch, most, when):
    """A base that cannot hold more than ``most`` rows; ``when`` says in which kind of pass."""
    seen = []
    body = BaseModel.body

    def failing(self, input_ids, *arguments, **options):
        kind = "update" if torch.is_grad_enabled() else "measure"
        kind = "rollout" if options.get("use_cache") else kind
        if kind in when:
            seen.append(input_ids.shape[0])
            if input_ids.shape[0] > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return body(self, input_ids, *arguments, **options)

    monkeypatch.setattr(BaseModel, "body", failing)
    return seen


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize(
    "when", [("update",), ("measure",), ("rollout",), ("update", "measure", "rollout")]
)
def test_running_out_of_memory_halves_the_rows_and_changes_no_result(
    make_lab, prompts, monkeypatch, when, minibatches
):
    plain = make_trainer(make_lab(), minibatches=minibatches, entropy_coefficient=0.01)
    expected, replies, _ = plain.iteration(prompts)
    trainer = make_trainer(make_lab(), minibatches=minibatches, entropy_coefficient=0.01)
    with monkeypatch.context() as patch:
        seen = small_memory(patch, 2, when)
        stats, rollout, _ = trainer.iteration(prompts)
        assert max(seen) > 2
        assert rollout.responses == replies.responses
        for one, other in zip(gradients(trainer), gradients(plain), strict=True):
            assert torch.allclose(one, other, rtol=2e-3, atol=1e-5)
        assert stats.loss == pytest.approx(expected.loss, abs=1e-4)
        assert stats.updates == expected.updates
        if when != ("rollout",):
            assert stats.micro_batch == 2
        seen.clear()
        trainer.iteration(prompts)  # it has learned: nothing fails again
        assert max(seen) <= 2


@pytest.mark.parametrize("at_once", [1, 2])
def test_gradients_of_a_failed_attempt_are_not_counted(make_lab, prompts, monkeypatch, at_once):
    monkeypatch.setattr(ppo, "cores", lambda _: at_once)
    plain = make_trainer(make_lab(), micro_batch=2, epochs=1, minibatches=1)
    plain.iteration(prompts)
    trainer = make_trainer(make_lab(), micro_batch=4, epochs=1, minibatches=1)
    grad, calls = torch.autograd.grad, []

    def failing(*arguments, **options):
        calls.append(None)
        found = grad(*arguments, **options)
        if len(calls) == 2:  # of the first wave, or after the first gradients have been added up
            raise RuntimeError("CUDA error: out of memory")
        return found

    monkeypatch.setattr(torch.autograd, "grad", failing)
    trainer.iteration(prompts)
    assert len(calls) == 6  # two with the one that failed, and four micro-batches of 2
    for one, other in zip(gradients(trainer), gradients(plain), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("when", ["update", "measure", "rollout"])
def test_when_one_reply_does_not_fit_the_round_fails_in_words(lab, prompts, monkeypatch, when):
    trainer = make_trainer(lab)
    before, adapters = weights(trainer), lab.bank.names
    with monkeypatch.context() as patch:
        seen = small_memory(patch, 0, (when,))
        with pytest.raises(RoundError, match="with a single reply at a time"):
            trainer.iteration(prompts)
        assert seen[-1] == 1
    assert equal(weights(trainer), before)
    assert lab.bank.names == adapters
    trainer.iteration(prompts)  # with memory again, it goes on


def test_a_scorer_without_memory_fails_the_round_in_words(lab, prompts):
    def scorer(rollout):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(RoundError, match="Memory ran out"):
        make_trainer(lab, scorer).iteration(prompts)


def test_other_errors_are_passed_on(lab, prompts):
    def scorer(rollout):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        make_trainer(lab, scorer).iteration(prompts)


# Numbers


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_stops_the_round_and_changes_no_weight(lab, prompts, bad):
    trainer = make_trainer(lab, lambda rollout: torch.full((len(rollout),), bad))
    before = weights(trainer)
    with pytest.raises(RoundError, match="PPO diverged in iteration 1"):
        trainer.iteration(prompts)
    assert equal(weights(trainer), before)


def test_a_gradient_that_is_no_number_stops_the_round_and_changes_no_weight(lab, prompts):
    trainer = make_trainer(lab)
    trainer.iteration(prompts)
    before = weights(trainer)
    trainer.policy.parameters()[3].register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(RoundError, match=r"diverged in iteration 2: grad_norm = nan.*Lower ppo"):
        trainer.iteration(prompts)
    assert equal(weights(trainer), before)


def repeat(work, times):
    for _ in range(times):
        work()


@pytest.mark.parametrize("stop_kl", [0.0, 0.1])
def test_weights_that_explode_are_told_in_words(lab, prompts, stop_kl):
    trainer = make_trainer(lab, learning_rate=1e30, stop_kl=stop_kl)
    with pytest.raises(RoundError, match=r"PPO diverged in iteration \d: .*ppo.learning_rate"):
        repeat(lambda: trainer.iteration(prompts), 3)


def test_a_policy_whose_probabilities_are_no_numbers_is_told_in_words(lab, prompts):
    trainer = make_trainer(lab)
    with torch.no_grad():
        trainer.policy.parameters()[-1].fill_(math.nan)
    with pytest.raises(RoundError, match="iteration 1: the policy's probabilities are not numbers"):
        trainer.iteration(prompts)


# Replies


def finite(trainer):
    return all(bool(tensor.isfinite().all()) for tensor in weights(trainer).values())


def ending_with(lab, tokens):
    lab.base.chat_format.end_token_ids = frozenset(tokens)
    return lab


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("count", [1, 8])
def test_empty_replies_consist_of_their_end_token(lab, prompts, count, minibatches):
    trainer = make_trainer(
        ending_with(lab, range(320)),
        lambda rollout: torch.arange(float(len(rollout))),
        minibatches=minibatches,
    )
    for _ in range(2):
        stats, rollout, _ = trainer.iteration(prompts[:count])
    assert all(len(response) == 1 for response in rollout.responses)
    assert (stats.finished, stats.reply_tokens) == (1.0, 1.0)
    assert stats.score == (count - 1) / 2
    assert stats.updates_planned == 2 * min(minibatches, count)
    assert finite(trainer)


def test_replies_that_never_end_all_get_the_fixed_score(lab, prompts):
    trainer = make_trainer(
        ending_with(lab, ()), lambda rollout: torch.full((len(rollout),), 5.0), kl_coefficient=0.1
    )
    stats, rollout, _ = trainer.iteration(prompts)
    assert all(len(response) == 6 for response in rollout.responses)
    assert stats.finished == 0.0
    assert stats.score == 5.0
    assert stats.reward == pytest.approx(-1.0)
    trainer.iteration(prompts)
    assert finite(trainer)


def test_one_prompt_alone_is_a_batch(lab, prompts):
    trainer = make_trainer(lab, minibatches=4)
    for _ in range(3):
        stats, _, _ = trainer.iteration(prompts[:1])
        assert stats.updates == 2  # one row, two epochs
    assert finite(trainer)


def test_one_prompt_many_times_is_answered_differently_each_time(lab, prompts):
    trainer = make_trainer(lab)
    stats, rollout, _ = trainer.iteration(prompts[:1] * 8)
    assert len(set(rollout.responses)) > 4
    assert stats.updates == 4
    assert finite(trainer)


def test_gradient_checkpointing_changes_no_bit_of_an_iteration(make_lab, prompts):
    found = []
    for checkpointing in (False, True):
        trainer = make_trainer(make_lab(), micro_batch=3, gradient_checkpointing=checkpointing)
        stats = [trainer.iteration(prompts)[0] for _ in range(2)]
        found.append((weights(trainer), stats))
    assert equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
