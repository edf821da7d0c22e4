"""Rotary position embeddings in one operation, forward and backward.

Su et al. 2021, "RoFormer", equation 34, in the layout of transformers: with halves a, b of a head,

    y = (a cos - b sin, b cos + a sin)

transformers takes nine operations for queries and keys, most of them copies, and autograd walks
each of them back; on a CPU that was a twentieth of a training step (docs/decisions.md).

Notation: B rows, H heads, T positions, D head size.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chatrlhf.native import training as native

_NAME = "apply_rotary_pos_emb"
Rotation = Callable[..., tuple[Tensor, Tensor]]


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return native.rotate(x, cos, sin, backward=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return native.rotate(grad, *ctx.saved_tensors, backward=True), None, None


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``x`` (B, H, T, D) turned by the angles of ``cos`` and ``sin`` (1 or B, T, D), bfloat16."""
    apply: Callable[..., Tensor] = _Rotated.apply
    return apply(x, cos, sin)


def fuse_rotations(model: nn.Module) -> int:
    """Let the attention of a model rotate as above; returns how many of its layers do.

    A layer is taken over only if its ``forward`` calls transformers' function by its usual name,
    and that computes the formula.
    """
    count = 0
    for module in model.modules():
        forward = type(module).forward
        if not isinstance(forward, types.FunctionType) or _NAME not in forward.__code__.co_names:
            continue
        theirs = forward.__globals__.get(_NAME)
        if callable(theirs) and _agrees(theirs):
            module.forward = types.MethodType(_with_rotation(forward, _ours(theirs)), module)
            count += 1
    return count


def _with_rotation(forward: types.FunctionType, rotation: Rotation) -> types.FunctionType:
    """The same function, with the name looked up as ``rotation``."""
    names = {**forward.__globals__, _NAME: rotation}
    copy = types.FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    copy.__kwdefaults__ = forward.__kwdefaults__
    return copy


def _ours(theirs: Rotation) -> Rotation:
    def rotation(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any, **more: Any
    ) -> tuple[Tensor, Tensor]:
        plain = not rest and not more and q.ndim == 4 and cos.shape[-1] == q.shape[-1]
        plain = plain and not torch.is_inference_mode_enabled()  # decoding has its own ways
        if plain and all(native.fits(tensor) for tensor in (q, k, cos, sin)):
            return rotated(q, cos, sin), rotated(k, cos, sin)
        return theirs(q, k, cos, sin, *rest, **more)

    return rotation


def _agrees(theirs: Rotation) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 2, 3, 8, generator=generator).unbind()
    angles = torch.randn(1, 3, 4, generator=generator).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    try:
        found = theirs(q, k, cos, sin)
    except (RuntimeError, TypeError, ValueError):  # it wants something else
        return False
    return all(
        bool(torch.allclose(one, _formula(x, cos[:, None], sin[:, None]), atol=1e-6))
        for one, x in zip(found, (q, k), strict=True)
    )


def _formula(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin
