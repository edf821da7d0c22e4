"""The structures and functions of ``decoder.cpp``: a decode step of a whole model, and draws.

Only layouts are known here, no model; ``engine/native_model.py`` fills them.
"""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from chatrlhf.native.library import native_library

BLOCK = 64  # outputs that are computed together; parts of a layer are filled up to it
MAX_ROWS = 32
MAX_PARTS = 3
INT8, BF16 = 0, 1
ACTIVATIONS = {"gelu_pytorch_tanh": 0, "silu": 1}
_ALIGNMENT = 64
_HUGE_PAGE = 1 << 21


class Linear(Structure):
    """Linear layers that share their input; weights as ``kind`` of the model says."""

    _fields_ = [
        *[(name, c_int32) for name in ("d_in", "d_out", "parts")],
        ("sizes", c_int32 * MAX_PARTS),
        ("first", c_int32 * MAX_PARTS),
        ("weight", c_void_p * MAX_PARTS),
        *[(name, c_void_p) for name in ("scale", "bias")],
    ]


class Update(Structure):
    """LoRA of one ``Linear``."""

    _fields_ = [("down", c_void_p), ("up", c_void_p), ("rank", c_int32)]


class Layer(Structure):
    """One decoder layer."""

    _fields_ = [
        *[(name, Linear) for name in ("qkv", "o", "gate_up", "down")],
        *[(name, c_void_p) for name in ("attention_norm", "attention_out_norm")],
        *[(name, c_void_p) for name in ("mlp_norm", "mlp_out_norm", "q_norm", "k_norm")],
        ("inverse_frequencies", c_void_p),
        ("rope_scale", c_float),
        ("window", c_int32),
    ]


class Model(Structure):
    """A decoder-only transformer."""

    _fields_ = [
        *[(name, c_int32) for name in ("kind", "layers", "hidden", "intermediate", "heads")],
        *[(name, c_int32) for name in ("kv_heads", "head_dim", "activation", "vocabulary")],
        *[(name, c_float) for name in ("epsilon", "attention_scale", "attention_softcap")],
        *[(name, c_float) for name in ("final_softcap", "embedding_scale")],
        *[(name, c_void_p) for name in ("embedding", "final_norm", "layer")],
        ("head", Linear),
    ]


class Segment(Structure):
    """Rows of a batch that lie in one cache, all of one length; or positions of one of its rows."""

    _fields_ = [
        *[(name, c_int64) for name in ("rows", "length", "run", "logits")],
        *[(name, c_void_p) for name in ("keys", "values", "capacity")],
    ]


class Batch(Structure):
    """What one step works on."""

    _fields_ = [
        *[(name, c_int32) for name in ("rows", "segments", "threads", "adapters")],
        *[(name, c_void_p) for name in ("token_ids", "pads", "adapter_of_row", "updates")],
        *[(name, c_void_p) for name in ("segment", "logits")],
    ]


class Draw(Structure):
    """A token to draw from a row of logits, and the answer."""

    _fields_ = [
        ("logits", c_void_p),
        ("uniform", c_double),
        *[(name, c_float) for name in ("temperature", "top_p")],
        *[(name, c_int32) for name in ("top_k", "token")],
        ("logprob", c_float),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None where there is none or the processor cannot run it."""
    found = native_library("decoder")
    if found is None:
        return None
    found.packed_bytes.argtypes = [c_int32, c_int32]
    found.packed_bytes.restype = c_int64
    found.pack.argtypes = [c_void_p, c_int32, c_int32, c_void_p, c_void_p]
    found.pack.restype = None
    found.step.argtypes = [c_void_p, c_void_p]
    found.draw.argtypes = [c_void_p, c_int32, c_int32, c_int32]
    found.draw.restype = None
    structures = (Linear, Update, Layer, Model, Segment, Batch, Draw)
    theirs = (c_int64 * len(structures))()
    found.struct_sizes(theirs)
    ours = [ctypes.sizeof(one) for one in structures]
    assert list(theirs) == ours, f"decoder.cpp has structures of {list(theirs)} bytes, not {ours}"
    return found if found.prepare() == 0 else None


def packed_bytes(d_out: int, d_in: int) -> int:
    """Memory of a weight (d_out, d_in) in int8, without its scales."""
    return -(-d_out // BLOCK) * BLOCK * -(-d_in // BLOCK) * BLOCK


def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (d_out, d_in) bfloat16 as int8 in the library's order, and a scale an output."""
    found = library()
    assert found is not None
    d_out, d_in = weight.shape
    packed = _aligned_bytes(found.packed_bytes(d_out, d_in))
    scale = torch.empty(-(-d_out // BLOCK) * BLOCK)
    source = weight.detach().contiguous()
    found.pack(source.data_ptr(), d_out, d_in, packed.data_ptr(), scale.data_ptr())
    return packed, scale


def _aligned_bytes(size: int) -> Tensor:
    """(size,) int8; large ones begin where a huge page may."""
    alignment = _HUGE_PAGE if size >= _HUGE_PAGE else _ALIGNMENT
    whole = torch.empty(size + alignment, dtype=torch.int8)
    return whole.narrow(0, -whole.data_ptr() % alignment, size)
