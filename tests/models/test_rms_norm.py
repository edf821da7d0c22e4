"""Fused RMS norms against transformers' modules and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from chatrlhf.models.rms_norm import fuse_norms, rms_norm

SIZE = 24


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def module_of(kind):
    module = kind(SIZE)
    module.weight.data.add_(0.3 * numbers(SIZE, seed=1))
    return module.requires_grad_(requires_grad=False)


def test_two_numbers_by_hand():
    # The mean of squares of (3, 4) is 12.5.
    found = rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), 0.0)
    assert found[0].tolist() == pytest.approx([3 / 12.5**0.5, 8 / 12.5**0.5])


@pytest.mark.parametrize("kind", [Gemma3RMSNorm, LlamaRMSNorm])
@pytest.mark.parametrize("shape", [(1, 5, SIZE), (2, 3, 4, SIZE)])
def test_values_and_gradients_are_those_of_the_module(kind, shape):
    theirs, ours = module_of(kind), nn.Sequential(module_of(kind))
    assert fuse_norms(ours) == 1
    found = []
    for module in (theirs, ours):
        x = numbers(*shape, seed=2).transpose(0, 1).requires_grad_()  # not contiguous
        y = module(x)
        (y * numbers(*y.shape, seed=3)).sum().backward()
        found.append((y.detach(), x.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.parametrize("kind", [Gemma3RMSNorm, LlamaRMSNorm])
def test_bfloat16_stays_bfloat16_and_is_nearer_to_exact(kind):
    exact, rounded = module_of(kind), nn.Sequential(module_of(kind))
    theirs, x = module_of(kind).bfloat16(), numbers(64, SIZE, seed=2).bfloat16()
    rounded[0].load_state_dict(theirs.state_dict())
    exact.load_state_dict(theirs.state_dict())
    rounded.bfloat16()
    assert fuse_norms(rounded) == 1
    found = rounded(x)
    assert found.dtype == torch.bfloat16
    expected = exact.float()(x.float())
    assert (found - expected).abs().mean() <= (theirs(x) - expected).abs().mean()


def test_a_row_has_the_same_bits_alone_and_among_others():
    gain, x = numbers(SIZE, seed=1), numbers(33, SIZE, seed=2)
    together = rms_norm(x, gain, 1e-6)
    assert all(torch.equal(rms_norm(x[[row]], gain, 1e-6)[0], together[row]) for row in range(33))


class OtherRMSNorm(nn.Module):
    """Called a norm, but something else."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(SIZE))
        self.eps = 1e-6

    def forward(self, x):
        return x * self.weight


def test_an_unknown_formula_is_left_alone():
    model = nn.Sequential(OtherRMSNorm())
    assert fuse_norms(model) == 0
    x = numbers(2, SIZE)
    assert torch.equal(model(x), x)
