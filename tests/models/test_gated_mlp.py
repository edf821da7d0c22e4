"""Fused gated MLPs against transformers' modules, in the families that have them."""

from __future__ import annotations

import pytest
import torch
from tiny_model import FAMILIES, write_tiny_model
from torch import nn

from chatrlhf.models.gated_mlp import _Forward, fuse_mlps, gated
from chatrlhf.models.weights import load_weights, read_config

MERGED = ("phi3",)  # gate and up are one layer there; it is left alone


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mlps_of_a_family_give_what_they_gave(tmp_path, family, dtype):
    folder = write_tiny_model(tmp_path, family, hidden=32)
    config = read_config(folder)
    kind = "fp32" if dtype is torch.float32 else "bf16"
    model = load_weights(
        folder, config, quantization=kind, device=torch.device("cpu"), dtype=dtype
    ).requires_grad_(requires_grad=False)
    mlp = model.get_decoder().layers[0].mlp
    x = numbers(2, 5, 32, seed=1).to(dtype).requires_grad_()
    expected = mlp(x)
    (expected_grad,) = torch.autograd.grad(expected.float().square().sum(), x)
    assert fuse_mlps(model) == (0 if family in MERGED else len(model.get_decoder().layers))
    found = mlp(x)
    (grad,) = torch.autograd.grad(found.float().square().sum(), x)
    error = 1e-6 if dtype is torch.float32 else 0.02
    assert (found - expected).norm() <= error * expected.norm()
    assert (grad - expected_grad).norm() <= 2 * error * expected_grad.norm()


@pytest.mark.parametrize("silu", [True, False])
def test_both_activations_by_hand(silu):
    x, up = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0])
    # x / (1 + e^-x), and x / (1 + e^-2u) with u = 0.797885 (x + 0.044715 x^3).
    expected = [3 * 0.731059, -2 * 0.119203] if silu else [3 * 0.841192, -2 * 0.022701]
    assert gated(x, up, silu=silu).tolist() == pytest.approx(expected, abs=1e-5)


class OtherMLP(nn.Module):
    """Has the parts, but puts them together in another way."""

    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(4, 8), nn.Linear(4, 8)
        self.down_proj, self.act_fn = nn.Linear(8, 4), nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x))


def test_an_unknown_formula_is_left_alone():
    model = nn.Sequential(OtherMLP())
    assert fuse_mlps(model) == 0
    assert not isinstance(vars(model[0]).get("forward"), _Forward)
