"""A label as a reward term: a logistic head that says how likely people are to give the label.

Convex: class-weighted cross-entropy on the same pooled features as the ranking term, with a
ridge chosen by out-of-fold loss, prompts kept together. The term is the logit of the positive
class. It is used only if it tells the classes apart on prompts that it was not fitted on.

Notation: M labelled replies, D features, R reduced coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatrlhf.maths.separation import (
    area_under_curve,
    least_area_above_chance,
    weighted_logistic_loss,
)
from chatrlhf.models.reward_terms import FeatureScale
from chatrlhf.training.convex_fit import RIDGES, Reduced, minimum
from chatrlhf.training.reward_data import LabelExample, fold_of, prompt_names


@dataclass(frozen=True)
class LabelFit:
    """A head ``weight`` (D,) on standardised features, and how good it is.

    ``area`` is the area under the ROC curve out of fold, ``needed`` what chance stays below.
    Replies on which people disagree evenly are fitted, but belong to neither class here.
    """

    weight: Tensor
    positives: int
    negatives: int
    area: float
    needed: float

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the head may be used."""
        return self.area > self.needed


def class_counts(examples: Sequence[LabelExample]) -> tuple[int, int]:
    """How many replies most people say the label is true of, and how many it is not."""
    positives = sum(one.target > 0.5 for one in examples)
    return positives, sum(one.target < 0.5 for one in examples)


def fit_label_head(
    examples: Sequence[LabelExample], features: Tensor, scale: FeatureScale
) -> LabelFit:
    """Fit the head to all examples; both classes must occur.

    ``features`` are the pooled features of the replies, (M, D).
    """
    targets = torch.tensor([one.target for one in examples])
    fold = torch.tensor(fold_of(examples))
    parts = [
        (_Labels(features[fold != one], targets[fold != one]), fold == one)
        for one in range(int(fold.max()) + 1)
    ]

    def out_of_fold(ridge: float) -> Tensor:
        logits = torch.zeros(len(examples))
        for fit, outside in parts:
            weight, bias = fit.solve(ridge)
            logits[outside] = fit.scale(features[outside]) @ weight + bias
        return logits

    tried = [(ridge, out_of_fold(ridge)) for ridge in RIDGES]
    ridge, logits = min(tried, key=lambda one: float(weighted_logistic_loss(one[1], targets)))
    whole = _Labels(features, targets, scale)
    positives, negatives = class_counts(examples)
    decided = targets != 0.5
    return LabelFit(
        weight=whole.solve(ridge)[0],
        positives=positives,
        negatives=negatives,
        area=area_under_curve(logits[decided], targets[decided] > 0.5),
        needed=_needed_area(examples),
    )


class _Labels:
    """Labelled replies in reduced coordinates, ready to be fitted."""

    def __init__(
        self, features: Tensor, targets: Tensor, scale: FeatureScale | None = None
    ) -> None:
        self.scale = scale or FeatureScale.of(features)
        self._reduced = Reduced.of(self.scale(features))
        self._targets = targets

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Weight (D,) and bias (), zero where a class is missing; the ridge spares the bias."""
        rows = self._reduced.rows
        if not 0.0 < float(self._targets.sum()) < len(rows):
            return torch.zeros(self._reduced.basis.shape[0]), torch.zeros(())

        def loss(found: Tensor) -> Tensor:
            logits = rows @ found[1:] + found[0]
            value = weighted_logistic_loss(logits, self._targets)
            return value + ridge * found[1:].square().sum()

        found = minimum(loss, (rows.shape[-1] + 1,))
        return self._reduced.weights(found[1:]), found[0]


def _needed_area(examples: Sequence[LabelExample]) -> float:
    """What chance stays below; replies to one prompt are alike, so a prompt counts once a class."""
    names = prompt_names(examples)
    positive = {name for name, one in zip(names, examples, strict=True) if one.target > 0.5}
    negative = {name for name, one in zip(names, examples, strict=True) if one.target < 0.5}
    return least_area_above_chance(len(positive), len(negative))
