"""How far the probabilities of a reward model can be believed.

Notation: P comparisons; ``margins`` (P,) = score of the better reply minus score of the worse.
The model's probability that the better one wins is sigmoid(margin / temperature).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fitted_temperature(margins: Tensor, low: float = 0.05, high: float = 20.0) -> float:
    """The temperature with the least mean log loss, by golden section on its logarithm.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    if margins.numel() == 0:
        return 1.0
    margins = margins.double()
    ratio = (5**0.5 - 1) / 2
    left = float(torch.tensor(low).log())
    right = float(torch.tensor(high).log())
    for _ in range(60):
        span = (right - left) * ratio
        if _log_loss(margins, right - span) < _log_loss(margins, left + span):
            right = left + span
        else:
            left = right - span
    return float(torch.tensor((left + right) / 2).exp())


def cross_fitted_error(margins: Tensor, folds: Tensor) -> float:
    """Calibration error, each fold at the temperature fitted to the other folds.

    A temperature judged on the very margins that it was fitted to looks better than it is.

    Args:
        margins: (P,).
        folds: (P,) integer, the fold of each comparison.
    """
    scaled = margins.double().clone()
    for fold in set(folds.tolist()):
        inside = folds == fold
        scaled[inside] = margins[inside].double() / fitted_temperature(margins[~inside])
    return expected_calibration_error(scaled)


def expected_calibration_error(margins: Tensor, temperature: float = 1.0, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence.

    Each comparison is seen from the side that the model favours: confidence is at least one half.
    """
    if margins.numel() == 0:
        return 0.0
    confidence = torch.sigmoid(margins.abs() / temperature).double()
    right = (margins > 0).double()
    index = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    gaps = 0.0
    for one in range(bins):
        inside = index == one
        if bool(inside.any()):
            gap = (confidence[inside].mean() - right[inside].mean()).abs()
            gaps += float(gap) * float(inside.double().mean())
    return gaps


def _log_loss(margins: Tensor, log_temperature: float) -> float:
    scaled = margins / torch.tensor(log_temperature, dtype=torch.float64).exp()
    return float(-F.logsigmoid(scaled).mean())
