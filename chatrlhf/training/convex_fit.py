"""Convex fits of linear heads: few examples, many features, a ridge.

Notation: M rows (replies), D features, R = min(M, D).

The minimum of a loss of ``X w`` plus a ridge lies in the span of the rows of X (Kimeldorf and
Wahba 1971), so the search runs in R coordinates of an orthonormal basis of that span. Lengths are
the same there, so the ridge is too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (0.01, 0.1, 1.0, 10.0)
_STEPS = 100
_HISTORY = 20


@dataclass(frozen=True)
class Reduced:
    """Rows in the coordinates of a basis: ``rows`` (M, R), ``basis`` (D, R)."""

    rows: Tensor
    basis: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Reduced:
        """Reduce rows (M, D); ``rows @ basis.T`` gives them back."""
        basis, upper = torch.linalg.qr(rows.T)
        return cls(upper.T, basis)

    def weights(self, coordinates: Tensor) -> Tensor:
        """Weights of the features, (..., R) -> (..., D)."""
        return coordinates @ self.basis.T


def minimum(loss: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """Where a smooth convex function of a tensor is least, by L-BFGS from zero."""
    found = torch.zeros(shape, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [found], max_iter=_STEPS, history_size=_HISTORY, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(found)
        torch.autograd.backward(value)
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call, unused-ignore]
    return found.detach()
