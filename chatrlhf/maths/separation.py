"""How well a score tells two classes apart.

Notation: M examples; ``scores`` (M,); ``is_positive`` (M,) bool.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def area_under_curve(scores: Tensor, is_positive: Tensor) -> float:
    """Probability that a positive example scores above a negative one, equal scores half.

    The area under the ROC curve, which is the Mann-Whitney statistic (Hanley and McNeil 1982).
    One half when a class is empty.
    """
    above = scores[is_positive][:, None] - scores[~is_positive][None, :]
    if above.numel() == 0:
        return 0.5
    wins = (above > 0).double() + 0.5 * (above == 0).double()
    return float(wins.mean())


def least_area_above_chance(positives: int, negatives: int, deviations: float = 1.96) -> float:
    """The area that scores without any skill stay below, but for one time in forty.

    Without skill the area has mean 1/2 and variance (P + N + 1) / (12 P N) (Mann and Whitney
    1947). Above 1, no area is enough.
    """
    if positives == 0 or negatives == 0:
        return math.inf
    variance = (positives + negatives + 1) / (12 * positives * negatives)
    return 0.5 + deviations * math.sqrt(variance)


def class_weights(targets: Tensor) -> tuple[float, float]:
    """Weights (positive, negative) that let both classes count the same, with mean 1.

    ``targets`` (M,) are shares from 0 to 1; both classes must occur.
    """
    positive = float(targets.sum())
    negative = targets.numel() - positive
    return targets.numel() / (2 * positive), targets.numel() / (2 * negative)


def weighted_logistic_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of M examples with ``class_weights``; a scalar."""
    positive, negative = class_weights(targets)
    terms = positive * targets * torch.nn.functional.softplus(-logits)
    terms = terms + negative * (1 - targets) * torch.nn.functional.softplus(logits)
    return terms.mean()
