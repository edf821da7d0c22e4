"""Statistics over the True positions of a mask.

Notation: B rows, T positions. ``mask`` is bool, True where a value counts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over all True positions; a scalar. Zero where nothing counts.

    Args:
        values: (B, T).
        mask: (B, T) bool.
    """
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over all True positions; values elsewhere may be anything, NaN included."""
    return torch.where(mask, values, torch.zeros_like(values)).sum()


def masked_row_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of each row over its True positions, (B,)."""
    return torch.where(mask, values, torch.zeros_like(values)).sum(dim=-1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance over all True positions; zero when fewer than two count."""
    count = mask.sum()
    if int(count) < 2:
        return values.new_zeros(())
    centred = values - masked_mean(values, mask)
    return masked_sum(centred.square(), mask) / (count - 1)


def masked_whiten(values: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over the True positions; zero elsewhere.

    Values: (B, T). The statistics ignore padding, so padding never changes a result.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + epsilon)
    return torch.where(mask, whitened, torch.zeros_like(values))
