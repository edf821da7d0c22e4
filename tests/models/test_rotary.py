"""Rotary embeddings as one node, against the formula in float64 and transformers' own layers."""

from __future__ import annotations

import types

import pytest
import torch
from tiny_model import FAMILIES, write_tiny_model

from chatrlhf.models.rotary import _formula, fuse_rotations, rotated
from chatrlhf.models.weights import load_weights, read_config
from chatrlhf.native import training as native

HALF = 2.0**-8
needs_library = pytest.mark.skipif(
    not native.fits(torch.zeros(1, dtype=torch.bfloat16)), reason="no C++ compiler"
)


def angles(rows, length, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Halves that differ, as no model has them, tell which half is used where.
    found = torch.randn(rows, length, size, generator=generator)
    return found.cos().bfloat16(), found.sin().bfloat16()


@needs_library
@pytest.mark.parametrize("size", [2, 30, 32, 64, 256])
@pytest.mark.parametrize("rows_of_angles", [1, 3])
@pytest.mark.parametrize("split", [False, True])
def test_values_and_gradients_are_those_of_the_formula(size, rows_of_angles, split):
    generator = torch.Generator().manual_seed(1)
    shape = (3, 5, 2, size) if split else (3, 2, 5, size)
    x = torch.randn(shape, generator=generator).bfloat16()
    x = (x.transpose(1, 2) if split else x).requires_grad_()
    cos, sin = angles(rows_of_angles, 5, size)
    y = rotated(x, cos, sin)
    upstream = torch.randn(y.shape, generator=generator).bfloat16()
    (grad,) = torch.autograd.grad(y, x, upstream)

    exact_x = x.detach().double().requires_grad_()
    exact = _formula(exact_x, cos.double()[:, None], sin.double()[:, None])
    (exact_grad,) = torch.autograd.grad(exact, exact_x, upstream.double())
    assert y.is_contiguous()
    assert torch.allclose(y.double(), exact, rtol=HALF, atol=1e-6)
    assert torch.allclose(grad.double(), exact_grad, rtol=HALF, atol=1e-6)


@needs_library
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_gives_the_same_with_it(tmp_path, family):
    folder = write_tiny_model(tmp_path, family, hidden=32)
    cpu = torch.device("cpu")
    model = load_weights(
        folder, read_config(folder), quantization="bf16", device=cpu, dtype=torch.bfloat16
    )
    tokens = torch.randint(5, 50, (2, 9), generator=torch.Generator().manual_seed(2))

    def run():
        logits = model(tokens).logits.float()
        first = next(model.get_decoder().layers[0].self_attn.parameters())
        return logits.detach(), torch.autograd.grad(logits.square().sum(), first)[0].float()

    before = run()
    assert fuse_rotations(model) == len(model.get_decoder().layers)
    for now, then in zip(run(), before, strict=True):
        assert (now - then).norm() < 0.03 * then.norm()


def test_other_formulas_are_left_alone():
    layer = torch.nn.Module()

    def forward(self, x):
        return apply_rotary_pos_emb(x, x, x, x)  # noqa: F821

    names = {"apply_rotary_pos_emb": lambda q, k, cos, sin: (q * cos, k * sin)}
    kind = type(
        "Strange", (torch.nn.Module,), {"forward": types.FunctionType(forward.__code__, names)}
    )
    layer.inner = kind()
    assert fuse_rotations(layer) == 0
