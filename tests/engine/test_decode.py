"""Decoding against transformers' own forward pass and generate."""

from __future__ import annotations

import pytest
import torch
from serving import random_lora
from tiny_model import FAMILIES, never_sampled

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.kv_cache import GrowingCache


def tokens(count, seed=0):
    return torch.randint(10, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def plain_logits(base, ids):
    """Logits to sample from after the last position, by the whole model without any cache."""
    logits = base.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float()
    logits[never_sampled(base)] = -1e30
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_steps_give_the_logits_of_the_whole_model(load, family):
    base, bank = load(family)
    prompt, rest = tokens(40), tokens(6, seed=1)
    state = DecodeState.prefill(base, bank, [prompt])
    assert torch.allclose(state.logits[0], plain_logits(base, prompt), atol=1e-4)
    for place, token in enumerate(rest):
        state.step(torch.tensor([token]))
        expected = plain_logits(base, prompt + rest[: place + 1])
        assert torch.allclose(state.logits[0], expected, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@torch.inference_mode()
def test_greedy_steps_give_what_generate_gives(load, family):
    base, bank = load(family)
    prompt = torch.tensor([tokens(50)])
    base.model.generation_config.eos_token_id = None
    expected = base.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=24
    )[0, 50:]
    state = DecodeState.prefill(base, bank, prompt.tolist())
    found = []
    for _ in range(24):
        found.append(int(state.logits.argmax()))
        state.step(torch.tensor([found[-1]]))
    assert found == expected.tolist()


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@torch.inference_mode()
def test_padded_prompts_of_different_lengths_match_each_alone(load, family):
    base, bank = load(family)
    prompts = [tokens(45, 1), tokens(7, 2), tokens(60, 3)]
    state = DecodeState.prefill(base, bank, prompts)
    for step in range(150):  # beyond the spare room of mask and cache
        token = (step * 7) % 200 + 20
        prompts = [[*prompt, token] for prompt in prompts]
        state.step(torch.full((3,), token))
    state.keep([2, 1])
    for row, prompt in enumerate([prompts[2], prompts[1]]):
        assert torch.allclose(state.logits[row], plain_logits(base, prompt), atol=1e-3)
    state.step(torch.tensor([30, 31]))
    assert torch.allclose(state.logits[1], plain_logits(base, [*prompts[1], 31]), atol=1e-3)


@torch.inference_mode()
def test_rows_share_one_prefill_and_go_their_own_way(load):
    base, bank = load("gemma3")
    prompts = [tokens(40, 1), tokens(40, 2)]
    state = DecodeState.prefill(base, bank, prompts, copies=2)
    state.step(torch.tensor([11, 12, 13, 14]))
    expected = [prompts[0] + [11], prompts[0] + [12], prompts[1] + [13], prompts[1] + [14]]
    for row, ids in enumerate(expected):
        assert torch.allclose(state.logits[row], plain_logits(base, ids), atol=1e-4)


@torch.inference_mode()
def test_rows_that_leave_free_their_memory(load):
    base, bank = load()
    state = DecodeState.prefill(base, bank, [tokens(60)], copies=4)
    state.step(torch.tensor([20, 21, 22, 23]))
    before = state.cache.nbytes
    state.keep([1])
    assert state.rows == 1
    assert state.cache.nbytes < before / 3
    state.step(torch.tensor([30]))
    expected = plain_logits(base, [*tokens(60), 21, 30])
    assert torch.allclose(state.logits[0], expected, atol=1e-4)


@torch.inference_mode()
def test_a_cropped_copy_of_a_sliding_cache_goes_on_right(load):
    base, bank = load("gemma3")
    assert base.model.config.sliding_window == 32
    prompt = tokens(120)
    state = DecodeState.prefill(base, bank, [prompt])
    assert isinstance(state.cache, GrowingCache)
    cropped = state.cache.select(torch.tensor([0]), 50)
    again = DecodeState(base, bank, cropped)
    other = prompt[:50] + tokens(30, seed=9)
    again.extend(torch.tensor([other[50:]]))
    assert torch.allclose(again.logits[0], plain_logits(base, other), atol=1e-4)


@torch.inference_mode()
def test_pinned_adapters_hold_whatever_is_active_on_the_bank(load):
    base, bank = load()
    for name, seed in (("a", 1), ("b", 2)):
        bank.add(name)
        bank.load_state(name, random_lora(bank, seed))
    prompt = tokens(30)
    expected = {}
    for name in ("a", "b"):
        with bank.using(name):
            expected[name] = plain_logits(base, [*prompt, 40])
    assert not torch.allclose(expected["a"], expected["b"], atol=1e-2)
    mixed = DecodeState.prefill(base, bank, [prompt, prompt, prompt], adapters=["a", "b", "a"])
    mixed.keep([1, 2])
    with bank.using("b"):
        mixed.step(torch.tensor([40, 40]))
    assert torch.allclose(mixed.logits[0], expected["b"], atol=1e-4)
    assert torch.allclose(mixed.logits[1], expected["a"], atol=1e-4)


@torch.inference_mode()
def test_joined_states_go_on_as_they_would_alone(load):
    base, bank = load()
    for name, seed in (("a", 1), ("b", 2)):
        bank.add(name)
        bank.load_state(name, random_lora(bank, seed))
    prompt = tokens(30)
    states = [DecodeState.prefill(base, bank, [prompt], adapters=[name]) for name in ("a", "b")]
    states[0].join(states[1:])
    states[0].select([1, 0, 0])
    states[0].step(torch.tensor([40, 40, 41]))
    for row, (name, token) in enumerate([("b", 40), ("a", 40), ("a", 41)]):
        with bank.using(name):
            expected = plain_logits(base, [*prompt, token])
        assert torch.allclose(states[0].logits[row], expected, atol=1e-4)


@torch.inference_mode()
def test_states_of_different_lengths_cannot_be_joined(load):
    base, bank = load()
    bank.add("a")
    states = [DecodeState.prefill(base, bank, [tokens(n)], adapters=["a"]) for n in (5, 6)]
    with pytest.raises(ValueError, match="cannot be joined"):
        states[0].join(states[1:])
