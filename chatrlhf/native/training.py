"""Elementwise parts of a training step in C++ (``training.cpp``), for bfloat16 on a CPU.

Each function says by ``fits`` whether it can take a tensor; torch's way is the caller's to have.
Notation: N rows, V columns of a block of logits, D features.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from chatrlhf.native.library import native_library

_SIGNATURES = {
    "add_block": [c_void_p, c_int64, c_int64, c_float, *[c_void_p] * 4],
    "rms_norm": [c_void_p, c_int64, c_int64, c_void_p, c_float, c_void_p, c_void_p],
    "rms_norm_backward": [c_void_p, c_void_p, c_int64, c_int64, *[c_void_p] * 3],
    "rotate": [*[c_void_p] * 6, c_int32, c_void_p, c_void_p],
    "gated": [c_void_p, c_void_p, c_int64, c_int32, c_void_p],
    "gated_backward": [*[c_void_p] * 3, c_int64, c_int32, c_void_p, c_void_p],
}


@cache
def _library() -> ctypes.CDLL | None:
    library = native_library("training")
    if library is not None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
    return library


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("the native library is not there; ask fits() first")
    return library


def fits(tensor: Tensor) -> bool:
    """Whether these functions can take a tensor: bfloat16, on a CPU, and the library compiles."""
    return tensor.dtype is torch.bfloat16 and tensor.is_cpu and _library() is not None


def add_block(
    raw: Tensor,
    temperature: float,
    largest: Tensor,
    total: Tensor,
    weighted: Tensor,
    kept: Tensor | None,
) -> None:
    """Add a block of logits (N, V), before the temperature, to running sums (N,) float32.

    ``maths/softmax_sums.py`` says what they are; they are changed in place. ``kept`` (N, V), if
    given, gets exp(logit - largest). All contiguous.
    """
    _loaded().add_block(
        *(raw.data_ptr(), *raw.shape, 1.0 / temperature),
        *(largest.data_ptr(), total.data_ptr(), weighted.data_ptr()),
        None if kept is None else kept.data_ptr(),
    )


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise the last dimension of ``x`` (..., D); ``gain`` (D,) float32.

    Returns:
        The result; 1 / rms of every row (N,) float32; and ``x``, or a copy of it, for
        ``rms_norm_backward``. Heads that were split off and transposed stay as they lie in memory.
    """
    if not _lies_as_heads(x):
        x = x.contiguous()
    rows = _as_it_lies(x)
    y = torch.empty(rows.shape, dtype=x.dtype)
    inverse = torch.empty(x.numel() // x.shape[-1])
    _loaded().rms_norm(
        *(rows.data_ptr(), len(inverse), x.shape[-1], gain.data_ptr(), eps),
        *(y.data_ptr(), inverse.data_ptr()),
    )
    return y.transpose(1, 2) if _lies_as_heads(x) else y, inverse, x


def rms_norm_backward(grad: Tensor, x: Tensor, gain: Tensor, inverse: Tensor) -> Tensor:
    """Gradient with respect to ``x`` as ``rms_norm`` returned it, of its shape and strides."""
    heads = _lies_as_heads(x)
    grad = (grad.transpose(1, 2) if heads else grad).contiguous()
    out = torch.empty(grad.shape, dtype=x.dtype)
    _loaded().rms_norm_backward(
        *(grad.data_ptr(), _as_it_lies(x).data_ptr(), len(inverse), x.shape[-1]),
        *(gain.data_ptr(), inverse.data_ptr(), out.data_ptr()),
    )
    return out.transpose(1, 2) if heads else out


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, backward: bool) -> Tensor:
    """Rotary position embedding of ``x`` (B, H, T, D), or of a gradient, back.

    ``cos``, ``sin`` (1 or B, T, D) of x's type. Forward gives a contiguous tensor, backward one
    that is contiguous with H and T exchanged, as both are for the layers on either side.
    """
    rows, heads, length, size = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    cos, sin = cos.contiguous(), sin.contiguous()
    shape = (rows, length, heads, size) if backward else (rows, heads, length, size)
    y = x.new_empty(shape).transpose(1, 2) if backward else x.new_empty(shape)
    of_angles = (0 if len(cos) == 1 else cos.stride(0), cos.stride(1))
    _loaded().rotate(
        *(x.data_ptr(), _integers(x.shape), _integers(x.stride()[:3])),
        *(cos.data_ptr(), sin.data_ptr(), _integers(of_angles)),
        *(backward, _integers(y.stride()[:3]), y.data_ptr()),
    )
    return y


def gated(x: Tensor, up: Tensor, *, silu: bool) -> Tensor:
    """activation(x) * up, elementwise; silu, else the tanh form of gelu. Both contiguous."""
    out = torch.empty_like(x)
    _loaded().gated(x.data_ptr(), up.data_ptr(), x.numel(), silu, out.data_ptr())
    return out


def gated_backward(grad: Tensor, x: Tensor, up: Tensor, *, silu: bool) -> tuple[Tensor, Tensor]:
    """Gradients with respect to ``x`` and ``up``; all contiguous."""
    of_x, of_up = torch.empty_like(x), torch.empty_like(up)
    _loaded().gated_backward(
        *(grad.data_ptr(), x.data_ptr(), up.data_ptr(), x.numel(), silu),
        *(of_x.data_ptr(), of_up.data_ptr()),
    )
    return of_x, of_up


def _lies_as_heads(x: Tensor) -> bool:
    """Whether ``x`` (B, H, T, D) is a contiguous (B, T, H, D), heads and positions exchanged."""
    return x.ndim == 4 and not x.is_contiguous() and x.transpose(1, 2).is_contiguous()


def _as_it_lies(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else x.transpose(1, 2)


def _integers(values: Sequence[int]) -> ctypes.Array[c_int64]:
    return (c_int64 * len(values))(*values)
