"""Gated MLPs whose activation and product are one step, forward and backward.

    y = W_down (act(W_gate x) * W_up x)

with act = silu (Shazeer 2020, "GLU Variants Improve Transformer", SwiGLU) or the tanh form of gelu.
Keeps the two products only, where autograd would keep four tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatrlhf.native import training as native

_PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, silu: bool) -> Tensor:  # noqa: FBT001  of apply
        x, up = x.contiguous(), up.contiguous()
        ctx.save_for_backward(x, up)
        ctx.silu = silu
        return native.gated(x, up, silu=silu)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, up = ctx.saved_tensors
        return (*native.gated_backward(grad.contiguous(), x, up, silu=ctx.silu), None)


def gated(x: Tensor, up: Tensor, *, silu: bool) -> Tensor:
    """activation(x) * up of tensors of one shape; silu, else the tanh form of gelu."""
    if native.fits(x):
        apply: Callable[..., Tensor] = _Gated.apply
        return apply(x, up, silu)
    return (F.silu(x) if silu else F.gelu(x, approximate="tanh")) * up


@torch.no_grad()
def fuse_mlps(model: nn.Module) -> int:
    """Let the gated MLPs of a model run as above; returns how many do.

    A module is taken over only if it has the usual parts, and its activation gives what one of the
    two gives.
    """
    count = 0
    for module in model.modules():
        if not all(hasattr(module, name) for name in _PARTS):
            continue
        for silu in (True, False):
            if _agrees(module, silu=silu):
                module.forward = _Forward(module, silu=silu)
                count += 1
                break
    return count


class _Forward:
    """What a fused module runs; its layers are looked up each time, as LoRA replaces them."""

    def __init__(self, module: Any, *, silu: bool) -> None:
        self.module = module
        self.silu = silu

    def __call__(self, x: Tensor) -> Tensor:
        module = self.module
        product = gated(module.gate_proj(x), module.up_proj(x), silu=self.silu)
        result: Tensor = module.down_proj(product)
        return result


def _agrees(module: Any, *, silu: bool) -> bool:
    """Whether the whole module computes the formula, on a few random rows."""
    weight = module.up_proj.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return _has_activation(module, silu=silu)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, module.up_proj.in_features, generator=generator)
    x = x.to(weight.device, weight.dtype)
    try:
        theirs = module(x).float()
    except (RuntimeError, TypeError):  # it wants more than one input
        return False
    ours = _Forward(module, silu=silu)(x).float()
    return bool((theirs - ours).norm() <= 0.02 * theirs.norm())


def _has_activation(module: Any, *, silu: bool) -> bool:
    """The same by the activation alone, for weights that are quantized."""
    x = torch.linspace(-4.0, 4.0, 33)
    ours = gated(x, torch.ones_like(x), silu=silu)
    return type(module).__name__.endswith("MLP") and bool(torch.allclose(module.act_fn(x), ours))
