"""Linear layers for decoding on a CPU: few rows, large weights, the same bits in any batch.

R rows (batch times positions), d_in and d_out the sizes of a layer, r the LoRA rank.

Two facts about torch's CPU kernels are behind this. In float32 the rounding of a row depends on
how many rows are multiplied, so a reply alone would differ from the same reply in a batch: few
rows are filled up to ``FILLED_ROWS``, the greatest number of replies to one request. In bfloat16
with AMX it does not depend on that, and ``W x^T`` gives the bits of ``x W^T`` in two thirds of
the time, but for a single row, which is doubled.

Inference mode is what tells decoding from training: measurements of PPO, with and without
gradients, must take one path, or its first ratio is not 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatrlhf.models.lora import LoraLinear

FILLED_ROWS = 8
_FEW_ROWS = 32


class DecodeLinear(nn.Linear):
    """``nn.Linear`` with a path for few rows."""

    has_amx = False

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to (..., d_in)."""
        rows = input.numel() // self.in_features
        if rows > _FEW_ROWS or not torch.is_inference_mode_enabled():
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
            output = F.linear(_filled_up(flat), self.weight, self.bias)[:rows]
        return output.view(*input.shape[:-1], self.out_features)


class DecodeLoraLinear(LoraLinear):
    """``LoraLinear`` that computes the update of few rows in the adapter's own type."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and the active adapter to (B, T, d_in)."""
        rows = x.numel() // self.in_features
        active = self.active
        if rows > _FEW_ROWS or not torch.is_inference_mode_enabled():
            return super().forward(x)
        y: Tensor = self.base(x)
        if active.rows is not None:
            a, b = active.rows.a[self.index], active.rows.b[self.index]
            update = torch.bmm(torch.bmm(x.to(a.dtype), a.mT), b.mT)
        elif active.name is not None:
            a, b = self.a[active.name], self.b[active.name]
            flat = x.reshape(rows, self.in_features).to(a.dtype)
            update = F.linear(F.linear(_filled_up(flat), a), b)[:rows]
        else:
            return y
        return y.add_(update.view(y.shape), alpha=self.scale)


def speed_up(model: nn.Module) -> None:
    """Give the linear layers of a model on the CPU their path for few rows; weights stay."""
    DecodeLinear.has_amx = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    for module in model.modules():
        if type(module) is LoraLinear:
            module.__class__ = DecodeLoraLinear
        elif type(module) is nn.Linear and module.weight.is_floating_point():
            module.__class__ = DecodeLinear


def _filled_up(flat: Tensor) -> Tensor:
    """(R, d) with rows of zeros up to ``FILLED_ROWS``."""
    missing = FILLED_ROWS - flat.shape[0]
    return F.pad(flat, (0, 0, 0, missing)) if missing > 0 else flat
