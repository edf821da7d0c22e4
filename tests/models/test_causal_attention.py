"""Causal attention with a plain backward pass against the definition and against torch's kernel."""

from __future__ import annotations

import pytest
import torch
from tiny_model import write_tiny_model
from torch.nn import functional as F

from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.causal_attention import IMPLEMENTATION, LONGEST, causal_attention

SCALE = 0.3


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def training_base(request, tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp(request.param), request.param)
    return load_base_model(folder, quantization="fp32", device="cpu", training=True)


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_definition(query, key, value):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.mT * SCALE
    future = torch.ones(scores.shape[-2:]).triu(1).bool()
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ value


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 7, 40])
def test_values_and_gradients_are_those_of_the_definition(key_heads, length):
    shapes = [(3, 4, length, 8), (3, key_heads, length, 8), (3, key_heads, length, 8)]
    found = []
    for attend, kind in ((by_definition, torch.float64), (None, torch.float32)):
        # Transposed, as transformers hands them over.
        given = [
            numbers(b, t, h, d, seed=seed).to(kind).transpose(1, 2).requires_grad_()
            for seed, (b, h, t, d) in enumerate(shapes)
        ]
        output = attend(*given) if attend else causal_attention(*given, SCALE)
        (output * numbers(*output.shape, seed=9).to(kind)).sum().backward()
        found.append([output.detach(), *(one.grad for one in given)])
    for expected, ours in zip(*found, strict=True):
        assert torch.allclose(ours.double(), expected, atol=1e-5)


def test_enormous_scores_leave_no_nan():
    given = [(numbers(1, 2, 9, 8, seed=seed) * 100).requires_grad_() for seed in range(3)]
    causal_attention(*given, SCALE).sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in given)


def test_bfloat16_gradients_are_as_near_to_exact_as_those_of_torch():
    exact = [numbers(2, 4, 30, 16, seed=seed).bfloat16() for seed in range(3)]
    errors, reference = [], None
    for attend, kind in (
        (by_definition, torch.float64),
        (lambda q, k, v: causal_attention(q, k, v, SCALE), torch.bfloat16),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=SCALE),
            torch.bfloat16,
        ),
    ):
        given = [one.to(kind).clone().requires_grad_() for one in exact]
        attend(*given).sum().backward()
        grads = [one.grad.double() for one in given]
        reference = reference or grads
        errors.append(
            sum(float((a - b).norm() / b.norm()) for a, b in zip(grads, reference, strict=True))
        )
    assert errors[0] == 0.0
    assert errors[1] <= 1.5 * errors[2]


def test_a_model_that_trains_uses_it_and_says_the_same(training_base):
    base = training_base
    config = base.model.config.get_text_config()
    assert config._attn_implementation == IMPLEMENTATION
    for length in (5, LONGEST + 3):  # the longer one takes torch's kernel
        ids = torch.randint(3, 50, (2, length), generator=torch.Generator().manual_seed(0))
        found = []
        for implementation in (IMPLEMENTATION, "eager"):
            config._attn_implementation = implementation
            found.append(base.body(ids).last_hidden_state)
        config._attn_implementation = IMPLEMENTATION
        assert torch.allclose(found[0], found[1], atol=1e-4)


def test_padding_on_the_left_is_still_masked(training_base):
    base = training_base
    ids = torch.tensor([[7, 8, 9]])
    padded = torch.tensor([[0, 0, 7, 8, 9]])
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    alone = base.body(ids).last_hidden_state[:, -1]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    among = base.body(padded, mask, positions).last_hidden_state[:, -1]
    assert torch.allclose(alone, among, atol=1e-4)
