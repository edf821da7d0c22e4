"""Layers for few rows: the same numbers, in any batch the same bits."""

from __future__ import annotations

import pytest
import torch
from serving import random_lora
from torch import nn

from chatrlhf.engine.small_batch import FILLED_ROWS, speed_up
from chatrlhf.models.lora import LoraBank


class Model(nn.Module):
    """Linear layers where a decoder has them."""

    def __init__(self, dtype, bias):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(96, 160, bias=bias)])
        self.head = nn.Linear(160, 700, bias=bias)
        self.to(dtype).requires_grad_(requires_grad=False)

    def forward(self, x):
        return self.head(self.layers[0](x))


def build(dtype, bias, fast):
    model = Model(dtype, bias)
    bank = LoraBank(model, 4, 8.0)
    for name, seed in (("a", 1), ("b", 2)):
        bank.add(name, dtype=torch.float32)
        bank.load_state(name, random_lora(bank, seed))
    if fast:
        speed_up(model)
    return model, bank


def inputs(rows, dtype):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(64, 1, 96, generator=generator)[:rows].to(dtype)


CASES = pytest.mark.parametrize(
    ("dtype", "bias"),
    [
        (torch.float32, False),
        (torch.float32, True),
        (torch.bfloat16, False),
        (torch.bfloat16, True),
    ],
    ids=str,
)


@CASES
@pytest.mark.parametrize("adapter", [None, "a"])
@pytest.mark.parametrize("rows", [1, 3, 8, 20, 40])
@torch.inference_mode()
def test_few_rows_give_the_numbers_of_plain_layers(dtype, bias, adapter, rows):
    results = []
    for fast in (False, True):
        model, bank = build(dtype, bias, fast)
        with bank.using(adapter):
            results.append(model(inputs(rows, dtype)).float())
    scale = results[0].abs().max()
    assert results[0].shape == results[1].shape == (rows, 1, 700)
    assert (results[0] - results[1]).abs().max() < scale * (
        1e-5 if dtype is torch.float32 else 2e-2
    )


@CASES
@pytest.mark.parametrize("adapter", [None, "a"])
@torch.inference_mode()
def test_a_row_has_the_same_bits_alone_and_in_any_batch(dtype, bias, adapter):
    model, bank = build(dtype, bias, fast=True)
    x = inputs(FILLED_ROWS, dtype)
    with bank.using(adapter):
        whole = model(x)
        for rows in range(1, FILLED_ROWS):
            assert torch.equal(model(x[:rows]), whole[:rows])
            assert torch.equal(model(x[rows : rows + 1]), whole[rows : rows + 1])


@torch.inference_mode()
def test_rows_may_have_different_adapters():
    model, bank = build(torch.float32, bias=False, fast=True)
    x = inputs(2, torch.float32)
    with bank.using_rows(["a", "b"]):
        mixed = model(x)
    for row, name in enumerate("ab"):
        with bank.using(name):
            assert torch.allclose(mixed[row], model(x)[row], atol=1e-4)


def test_gradients_of_an_adapter_are_those_of_plain_layers():
    gradients = []
    for fast in (False, True):
        model, bank = build(torch.float32, bias=False, fast=fast)
        for parameter in bank.parameters_of("a"):
            parameter.requires_grad_(requires_grad=True)
        with bank.using("a"):
            model(inputs(3, torch.float32)).square().sum().backward()
        gradients.append([parameter.grad for parameter in bank.parameters_of("a")])
    for plain, fast in zip(*gradients, strict=True):
        assert plain.abs().sum() > 0
        assert torch.equal(plain, fast)
