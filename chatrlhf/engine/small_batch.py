"""Linear layers for decoding on a CPU: few rows, large weights, the same bits in any batch.

R rows (batch times positions), d_in and d_out the sizes of a layer, r the LoRA rank.

Two facts about torch's CPU kernels are behind this. In float32 the rounding of a row depends on
how many rows are multiplied, so a reply alone would differ from the same reply in a batch: few
rows are filled up to ``FILLED_ROWS``, the greatest number of replies to one request. In bfloat16
with AMX it does not depend on that, and ``W x^T`` gives the bits of ``x W^T`` in two thirds of
the time, but for a single row, which is doubled. Where rows of several requests are in one batch
(``joint_rows``), they are multiplied eight at a time, as each request would be alone.

Inference mode is what tells decoding from training: measurements of PPO, with and without
gradients, must take one path, or its first ratio is not 1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatrlhf.models.lora_layer import LoraLinear

FILLED_ROWS = 8
FEW_ROWS = 32


class _Mode(threading.local):
    """Whether rows of several requests are in the batch of this thread."""

    is_joint = False


_mode = _Mode()


class DecodeLinear(nn.Linear):
    """``nn.Linear`` with a path for few rows."""

    has_amx = False

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (..., d_in)."""
        rows = input.numel() // self.in_features
        if rows > FEW_ROWS or not torch.is_inference_mode_enabled():
            return F.linear(input, self.weight, self.bias)
        flat = input.reshape(rows, self.in_features)
        if self.weight.dtype is torch.bfloat16 and self.has_amx:
            several = flat.expand(2, -1) if rows == 1 else flat
            product = torch.mm(self.weight, several.t())  # (d_out, R)
            # A third of the time of ``contiguous`` where d_out is a vocabulary.
            output = product.new_empty((rows, self.out_features)).copy_(product.t()[:rows])
            if self.bias is not None:
                output += self.bias
        else:
            output = _in_eights(lambda some: F.linear(some, self.weight, self.bias), flat)
        return output.view(*input.shape[:-1], self.out_features)


class DecodeLoraLinear(LoraLinear):
    """``LoraLinear`` that computes the update of few rows in the adapter's own type."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and the active adapter to (B, T, d_in)."""
        rows = x.numel() // self.in_features
        active = self.active
        is_step = active.rows is None or rows == len(active.rows.names)
        if rows > FEW_ROWS or not is_step or not torch.is_inference_mode_enabled():
            return super().forward(x)
        y: Tensor = self.base(x)
        flat, to = x.reshape(rows, self.in_features), y.view(rows, self.out_features)
        if active.name is not None:
            to.add_(self._update(active.name, flat), alpha=self.scale)
        elif active.rows is not None:
            # Each adapter alone, so that a row does not depend on which others there are.
            for name, of_name in active.rows.groups.items():
                update = self._update(name, flat[of_name])
                to[of_name] = to[of_name].add_(update, alpha=self.scale)
        return y

    def _update(self, name: str, flat: Tensor) -> Tensor:
        a, b = self.a[name], self.b[name]
        return _in_eights(lambda some: F.linear(F.linear(some, a), b), flat.to(a.dtype))


@contextmanager
def joint_rows() -> Iterator[None]:
    """Give rows the bits that they have in a batch of ``FILLED_ROWS`` at most, in larger ones."""
    before, _mode.is_joint = _mode.is_joint, True
    try:
        yield
    finally:
        _mode.is_joint = before


def speed_up(model: nn.Module) -> None:
    """Give the linear layers of a model on the CPU their path for few rows; weights stay."""
    DecodeLinear.has_amx = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    for module in model.modules():
        if type(module) is LoraLinear:
            module.__class__ = DecodeLoraLinear
        elif type(module) is nn.Linear and module.weight.is_floating_point():
            module.__class__ = DecodeLinear


def _in_eights(layer: Callable[[Tensor], Tensor], flat: Tensor) -> Tensor:
    """Apply a layer to (R, d), ``FILLED_ROWS`` at a time: rows of zeros fill up the last."""
    rows = flat.shape[0]
    if rows <= FILLED_ROWS:
        return layer(F.pad(flat, (0, 0, 0, FILLED_ROWS - rows)))[:rows]
    if not _mode.is_joint:
        return layer(flat)
    return torch.cat(
        [
            _in_eights(layer, some)
            for some in torch.tensor_split(flat, tuple(range(FILLED_ROWS, rows, FILLED_ROWS)))
        ]
    )
