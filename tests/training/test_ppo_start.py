"""Before its first update a batch starts at ratio one, and the first batch at the reference."""

from __future__ import annotations

import pytest
import torch
from ppo_lab import equal, make_trainer, weights

from chatrlhf.errors import RoundError
from chatrlhf.training import ppo
from chatrlhf.training.actor_critic import ActorCritic


@pytest.mark.parametrize("quantization", ["fp32", "bf16"])
@pytest.mark.parametrize(("minibatches", "micro_batch"), [(1, 100), (1, 3), (2, 100), (3, 2)])
def test_every_batch_starts_at_ratio_one_to_the_last_bit_and_the_first_without_kl(
    make_lab, prompts, quantization, minibatches, micro_batch
):
    lab = make_lab(quantization=quantization)
    trainer = make_trainer(lab, minibatches=minibatches, micro_batch=micro_batch)
    for iteration in range(3):
        stats, _, _ = trainer.iteration(prompts)
        assert stats.first_ratio_error == 0.0
        assert (stats.kl == 0.0) == (iteration == 0)
        assert stats.entropy > 1.0
        assert stats.approx_kl > 0.0
        # Tokens are drawn by the decode loop, whose sums round differently.
        assert 0.0 < stats.sampling_mismatch < {"fp32": 1e-5, "bf16": 0.05}[quantization]


@pytest.mark.parametrize("shift", [1e-6, 1e-3])
def test_an_update_of_another_policy_than_the_one_that_sampled_is_refused(
    lab, prompts, monkeypatch, shift
):
    evaluate = ActorCritic.evaluate

    def shifted(self, batch):
        found = evaluate(self, batch)
        return found._replace(logprobs=found.logprobs + shift * torch.is_grad_enabled())

    monkeypatch.setattr(ActorCritic, "evaluate", shifted)
    trainer = make_trainer(lab)
    before = weights(trainer)
    if shift < 1e-5:  # as much as rounding
        trainer.iteration(prompts)
        return
    with pytest.raises(RoundError, match="do not use the same policy"):
        trainer.iteration(prompts)
    assert equal(weights(trainer), before)


def test_a_reference_that_differs_from_an_equal_policy_is_refused(lab, prompts, monkeypatch):
    reference = ActorCritic.reference_logprobs
    monkeypatch.setattr(
        ActorCritic, "reference_logprobs", lambda *own: reference(*own) * (1 + 1e-6)
    )
    trainer = make_trainer(lab)
    with pytest.raises(RoundError, match="policy equals its reference"):
        trainer.iteration(prompts)
    # A policy that has moved may differ.
    with torch.no_grad():
        trainer.policy.parameters()[0].add_(0.1)
    trainer.iteration(prompts)


@pytest.mark.parametrize(("quantization", "temperature"), [("fp32", 0.98), ("bf16", 0.4)])
def test_replies_of_another_temperature_are_refused(
    make_lab, prompts, monkeypatch, quantization, temperature
):
    sample = ppo.collect_rollout
    monkeypatch.setattr(
        ppo,
        "collect_rollout",
        lambda *own, **named: sample(*own, **{**named, "temperature": temperature}),
    )
    trainer = make_trainer(make_lab(quantization=quantization))
    before = weights(trainer)
    with pytest.raises(RoundError, match="replies were drawn with log-probabilities that differ"):
        trainer.iteration(prompts)
    assert equal(weights(trainer), before)


def shapes_seen(monkeypatch):
    """Shapes of the batches that policy and critic read, in order, and whether for gradients."""
    seen = []
    evaluate = ActorCritic.evaluate

    def spy(self, batch):
        seen.append((tuple(batch.token_ids[:, 0].tolist()), torch.is_grad_enabled()))
        return evaluate(self, batch)

    monkeypatch.setattr(ActorCritic, "evaluate", spy)
    return seen


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_batch_that_runs_at_once_is_read_once_in_its_first_epoch(
    lab, prompts, monkeypatch, at_once
):
    monkeypatch.setattr(ppo, "cores", lambda _: at_once)
    seen = shapes_seen(monkeypatch)
    make_trainer(lab, minibatches=1, epochs=1).iteration(prompts)
    assert [with_gradients for _, with_gradients in seen] == [True] * at_once
    seen.clear()
    make_trainer(lab_again(lab), minibatches=1, epochs=3).iteration(prompts)
    assert [with_gradients for _, with_gradients in seen] == [True] * 3 * at_once


def lab_again(lab):
    """The lab without the adapters of an earlier trainer."""
    for name in lab.bank.names:
        if name != "shape":
            lab.bank.remove(name)
    return lab


@pytest.mark.usefixtures("one_core")
def test_all_epochs_use_the_micro_batches_that_were_measured(lab, prompts, monkeypatch):
    seen = shapes_seen(monkeypatch)
    make_trainer(lab, minibatches=2, epochs=6, micro_batch=3).iteration(prompts)
    measured = [rows for rows, with_gradients in seen if not with_gradients]
    used = [rows for rows, with_gradients in seen if with_gradients]
    assert len(measured) == 4  # 8 rows: two minibatches of 2 + 2
    epochs = [used[at : at + 4] for at in range(0, len(used), 4)]
    assert epochs[0] == measured
    assert all(sorted(epoch) == sorted(measured) for epoch in epochs)
    assert any(epoch != measured for epoch in epochs)  # minibatches come in another order
