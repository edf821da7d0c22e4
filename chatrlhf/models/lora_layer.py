"""A frozen linear layer with the low-rank updates of every adapter of a bank (``lora.py``).

Notation: B batch rows, T tokens, N = B * T, r rank, d_in and d_out the sizes of the layer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn


class RowStack:
    """Adapters of a batch whose rows differ, one name a row."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    @cached_property
    def groups(self) -> dict[str, Tensor]:
        """The rows of each adapter, (n,) ascending."""
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            rows.setdefault(name, []).append(row)
        return {name: torch.tensor(of_name) for name, of_name in rows.items()}

    def of(self, layer: LoraLinear) -> tuple[Tensor, Tensor]:
        """``A`` (B, r, d_in) and ``B`` (B, d_out, r) of a layer, gathered once."""
        made = self._made.get(layer.index)
        if made is None:
            a = torch.stack([layer.a[name].detach() for name in self.names])
            b = torch.stack([layer.b[name].detach() for name in self.names])
            made = self._made[layer.index] = a, b
        return made


class ActiveAdapter(threading.local):
    """Which adapter the wrapped layers apply, in each thread; shared by all layers of a bank."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.rows: RowStack | None = None


class LoraLinear(nn.Module):
    """A frozen linear layer and the low-rank updates of every adapter."""

    def __init__(self, base: nn.Linear, index: int, scale: float, active: ActiveAdapter) -> None:
        super().__init__()
        self.base = base
        self.index = index
        self.scale = scale
        self.active = active
        self.a: dict[str, nn.Parameter] = {}
        self.b: dict[str, nn.Parameter] = {}
        self.in_features = base.in_features
        self.out_features = base.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and the active adapter to ``x`` (B, T, d_in)."""
        active = self.active
        if active.name is not None:
            return self._adapted(x, self.a[active.name], self.b[active.name])
        y: Tensor = self.base(x)
        if active.rows is None:
            return y
        a, b = active.rows.of(self)
        update = torch.bmm(torch.bmm(x, a.mT.to(x.dtype)), b.mT.to(x.dtype))
        return y + (update if self.scale == 1.0 else update * self.scale)

    def _adapted(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        weight = self.base.weight
        product: Callable[..., Tensor] = _AdaptedProduct.apply
        update: Callable[..., Tensor] = _LowRankUpdate.apply
        if self.base.bias is None and weight.is_floating_point():
            return product(x, weight, a, b, self.scale)
        return update(self.base(x), x, a, b, self.scale)


def _grad_of_adapter(
    ctx: Any, grad: Tensor, rows: Tensor, low_b: Tensor, low: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to A x, A and B; ``grad`` (N, d_out), ``rows`` (N, d_in)."""
    grad_low = grad @ low_b
    if ctx.scale != 1.0:
        grad_low = grad_low * ctx.scale
    grad_a = (grad_low.t() @ rows).to(ctx.dtype)
    grad_b = (grad.t() @ low).to(ctx.dtype)
    return grad_low, grad_a, grad_b if ctx.scale == 1.0 else grad_b.mul_(ctx.scale)


class _AdaptedProduct(torch.autograd.Function):
    """``W x + scale * B (A x)`` as one node of the graph, added up in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        low = rows @ low_a.t()
        ctx.save_for_backward(rows, weight, low_a, low_b, low)
        ctx.scale, ctx.dtype = scale, a.dtype
        y = torch.mm(rows, weight.t()).addmm_(low, low_b.t(), alpha=scale)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, None]:
        rows, weight, low_a, low_b, low = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        grad_low, grad_a, grad_b = _grad_of_adapter(ctx, flat, rows, low_b, low)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(flat, weight).addmm_(grad_low, low_a).view(*grad.shape[:-1], -1)
        return grad_x, None, grad_a, grad_b, None


class _LowRankUpdate(torch.autograd.Function):
    """``y + scale * B (A x)`` as one node of the graph, for layers that are no plain product.

    Autograd would keep the update and its scaled form, and walk seven nodes a layer.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        low = rows @ low_a.t()
        ctx.save_for_backward(rows, low_a, low_b, low)
        ctx.scale, ctx.dtype = scale, a.dtype
        flat = y.view(-1, y.shape[-1])
        return torch.addmm(flat, low, low_b.t(), alpha=scale).view(y.shape)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, None]:
        rows, low_a, low_b, low = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        grad_low, grad_a, grad_b = _grad_of_adapter(ctx, flat, rows, low_b, low)
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = (grad_low @ low_a).view(*grad.shape[:-1], -1)
        return grad, grad_x, grad_a, grad_b, None
