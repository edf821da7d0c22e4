"""Rollouts: samples of the policy's own distribution, and where they end."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch
from tiny_model import never_sampled, write_tiny_model

from chatrlhf.engine.decode import DecodeState
from chatrlhf.native import decoder as native
from chatrlhf.training import rollout as rollout_module
from chatrlhf.training.batches import make_batch
from chatrlhf.training.rollout import collect_rollout
from chatrlhf.training.row_limit import RowLimit


def collect(policy, prompts, seed=1, tokens=8, temperature=1.0, limit=None):
    return collect_rollout(
        policy,
        prompts,
        seed=seed,
        max_new_tokens=tokens,
        temperature=temperature,
        limit=limit,
    )


def statistics(policy, rollout, temperature):
    batch = make_batch(rollout.sequences, 0)
    with torch.no_grad():
        return policy.token_statistics(
            batch.token_ids, batch.predicts_response, batch.targets, temperature
        )


def test_the_same_seed_gives_the_same_replies(lab, prompts):
    policy = lab.policy(seed=1)
    assert collect(policy, prompts) == collect(policy, prompts)
    assert collect(policy, prompts) != collect(policy, prompts, seed=2)


def test_a_row_draws_the_same_with_fewer_rows_beside_it(lab, prompts):
    policy = lab.policy(seed=1)
    assert collect(policy, prompts[:3]).responses == collect(policy, prompts).responses[:3]


def test_replies_end_at_their_first_end_token_or_at_the_limit(lab, prompts):
    end_tokens = lab.base.chat_format.end_token_ids
    rollout = collect(lab.policy(seed=1), prompts * 4)
    assert len(rollout) == 32
    assert 0 < sum(rollout.finished) < 32
    for response, finished in zip(rollout.responses, rollout.finished, strict=True):
        ends = [place for place, token in enumerate(response) if token in end_tokens]
        assert ends == ([len(response) - 1] if finished else [])
        assert len(response) <= 8 if finished else len(response) == 8


def test_an_end_token_at_the_limit_counts_as_finished(lab, prompts):
    end_tokens = lab.base.chat_format.end_token_ids
    rollout = collect(lab.policy(seed=1), prompts * 8, tokens=1)
    assert all(len(response) == 1 for response in rollout.responses)
    assert rollout.finished == tuple(response[0] in end_tokens for response in rollout.responses)
    assert 0 < sum(rollout.finished) < 64


def test_sequences_are_prompts_and_responses(lab, prompts):
    rollout = collect(lab.policy(seed=1), prompts)
    for one, prompt, response in zip(rollout.sequences, prompts, rollout.responses, strict=True):
        assert one.token_ids == (*prompt, *response)
        assert one.is_response == (False,) * len(prompt) + (True,) * len(response)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_first_tokens_are_distributed_as_the_models_softmax(lab, temperature):
    policy = lab.policy(seed=1)
    count, prompt = 3000, [80, 90, 100]
    rollout = collect(policy, [prompt] * count, tokens=1, temperature=temperature)
    seen = torch.zeros(lab.base.vocab_size).index_add_(
        0, torch.tensor(rollout.responses)[:, 0], torch.ones(count)
    )
    with torch.no_grad(), lab.bank.using("policy"):
        logits = lab.base.model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
    logits[never_sampled(lab.base)] = -math.inf
    expected = count * (logits / temperature).softmax(-1)
    rare = expected < 5
    groups = [(seen[~rare], expected[~rare]), (seen[rare].sum()[None], expected[rare].sum()[None])]
    chi_square = sum(float(((s - e) ** 2 / e).sum()) for s, e in groups)
    freedom = int((~rare).sum())
    assert freedom > 20
    assert abs(chi_square - freedom) < 4.5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_mean_log_probability_of_samples_is_minus_the_entropy(lab, prompts, temperature):
    policy = lab.policy(seed=1)
    rollout = collect(policy, prompts * 40, temperature=temperature)
    found = statistics(policy, rollout, temperature)
    surplus = (found.logprobs + found.entropies).double()
    assert surplus.numel() > 1000
    assert abs(surplus.mean()) < 4 * surplus.std() / math.sqrt(surplus.numel())


def test_successive_tokens_are_drawn_independently(lab):
    policy = lab.policy(seed=1)
    rollout = collect(policy, [[80, 90, 100]] * 400, tokens=2)
    places = []  # of each token in the cumulative distribution that it was drawn from
    for one in rollout.sequences:
        if len(one) < 5:
            continue
        with torch.no_grad(), lab.bank.using("policy"):
            logits = lab.base.model(input_ids=torch.tensor([one.token_ids])).logits[0, 2:4]
        logits[:, never_sampled(lab.base)] = -math.inf
        p = logits.softmax(-1)
        drawn = torch.tensor(one.token_ids[3:])[:, None]
        places.append((p.cumsum(-1) - p / 2).gather(-1, drawn)[:, 0])
    assert len(places) > 200
    correlation = torch.corrcoef(torch.stack(places).T)[0, 1]
    assert abs(correlation) < 4 / math.sqrt(len(places))


@pytest.mark.parametrize("rows_at_once", [8, 3])
def test_log_probabilities_while_sampling_are_those_of_the_training_pass(
    lab, prompts, rows_at_once
):
    policy = lab.policy(seed=1)
    rollout = collect(policy, prompts, temperature=0.8, limit=RowLimit(rows_at_once))
    assert [len(row) for row in rollout.logprobs] == [len(row) for row in rollout.responses]
    sampled = [logprob for row in rollout.logprobs for logprob in row]
    assert statistics(policy, rollout, 0.8).logprobs.tolist() == pytest.approx(sampled, abs=1e-4)


def test_neither_rollout_nor_training_knows_control_tokens(lab, prompts):
    control = never_sampled(lab.base)
    bias = torch.zeros(lab.base.vocab_size)
    bias[control] = 12.0  # the model would say little else
    lab.base.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
    policy = lab.policy(seed=1)
    rollout = collect(policy, prompts, temperature=0.8)
    said = [token for response in rollout.responses for token in response]
    assert not set(control).intersection(said)
    sampled = [logprob for row in rollout.logprobs for logprob in row]
    found = statistics(policy, rollout, 0.8)
    assert found.logprobs.tolist() == pytest.approx(sampled, abs=1e-4)
    assert float(found.entropies.min()) > 0.5  # of the tokens that remain


def test_fewer_rows_at_once_give_the_same_replies(lab, prompts):
    policy = lab.policy(seed=1)
    for rows in (1, 3, 5):
        limited = collect(policy, prompts, limit=RowLimit(rows))
        assert limited.responses == collect(policy, prompts).responses


def test_the_bank_is_as_before_even_after_an_error(lab, prompts, monkeypatch):
    policy = lab.policy(seed=1)
    before = {name: lab.bank.fingerprint(name) for name in lab.bank.names}
    collect(policy, prompts)
    assert {name: lab.bank.fingerprint(name) for name in lab.bank.names} == before

    def broken(*_):
        raise RuntimeError("stop")

    monkeypatch.setattr(rollout_module, "draw_one", broken)
    with pytest.raises(RuntimeError, match="stop"):
        collect(policy, prompts)
    assert lab.bank.names == tuple(before)
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_the_bare_base_answers_too(lab, prompts):
    with lab.policy(seed=1).as_reference() as reference:
        reference.adapter = None
        assert len(collect(reference, prompts)) == 8


def mismatch(policy, rollout):
    """Mean difference of the sampled log-probabilities from those of the training pass."""
    drawn = torch.tensor([logprob for row in rollout.logprobs for logprob in row])
    return float((statistics(policy, rollout, 1.0).logprobs - drawn).abs().mean())


@pytest.mark.skipif(native.library() is None, reason="needs a C++ compiler")
def test_native_steps_sample_from_the_policy_that_is_updated(
    make_lab, prompts, tmp_path, monkeypatch
):
    folder = write_tiny_model(tmp_path / "qwen3", "qwen3", hidden=256)
    lab = make_lab(folder, "bf16")
    policy = lab.policy(seed=1)
    decoder = rollout_module._native(policy)
    assert decoder is not None
    many = prompts * 4
    by_native = collect(policy, many, tokens=12)
    monkeypatch.setattr(rollout_module, "_native", lambda _: None)
    by_torch = collect(policy, many, tokens=12)
    assert by_native.logprobs != by_torch.logprobs
    assert mismatch(policy, by_native) < 1.3 * mismatch(policy, by_torch)
    monkeypatch.undo()
    with torch.no_grad():  # as an optimizer does
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    updated = collect(policy, many, tokens=12)
    assert updated.responses != by_native.responses
    assert mismatch(policy, updated) < 2 * mismatch(policy, by_native)
    assert collect(policy, many, tokens=12).responses == updated.responses


@pytest.mark.skipif(native.library() is None, reason="needs a C++ compiler")
def test_more_rows_than_a_native_step_takes_are_decoded_natively_too(
    make_lab, prompts, tmp_path, monkeypatch
):
    lab = make_lab(write_tiny_model(tmp_path / "qwen3", "qwen3", hidden=256), "bf16")
    policy = lab.policy(seed=1)
    many = prompts * 9
    assert len(many) > 2 * native.MAX_ROWS
    together = collect(policy, many, tokens=6)
    torchs_steps = []
    extend = DecodeState.extend
    monkeypatch.setattr(
        DecodeState, "extend", lambda state, ids: torchs_steps.append(ids) or extend(state, ids)
    )
    assert collect(policy, many, tokens=6) == together
    assert [ids.shape[0] for ids in torchs_steps] == [len(many)]  # the prompts alone


@pytest.mark.skipif(native.library() is None, reason="needs a C++ compiler")
def test_a_base_that_is_gone_takes_its_decoder_along(make_lab, prompts, tmp_path):
    lab = make_lab(write_tiny_model(tmp_path / "qwen3", "qwen3", hidden=256), "bf16")
    collect(lab.policy(seed=1), prompts)
    base, decoder = weakref.ref(lab.base), weakref.ref(rollout_module._natives[lab.base])
    assert decoder() is not None
    vars(lab).clear()
    gc.collect()
    assert base() is None
    assert decoder() is None
