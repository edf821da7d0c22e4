"""Area under the curve, the area of chance, and the logistic loss, by hand and by enumeration."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import pvariance

import pytest
import torch

from chatrlhf.maths.separation import (
    area_under_curve,
    class_weights,
    least_area_above_chance,
    weighted_logistic_loss,
)


def test_area_by_hand():
    scores = torch.tensor([0.9, 0.4, 0.4, 0.1, 0.6])
    positive = torch.tensor([True, True, False, False, False])
    # 0.9 beats all three; 0.4 ties one, beats one, loses to one.
    assert area_under_curve(scores, positive) == pytest.approx((3 + 0.5 + 1) / 6)
    assert area_under_curve(-scores, positive) == pytest.approx(1.5 / 6)


def test_an_empty_class_has_the_area_of_chance():
    assert area_under_curve(torch.tensor([1.0, 2.0]), torch.tensor([True, True])) == 0.5


@pytest.mark.parametrize(("positives", "negatives"), [(2, 3), (4, 4), (1, 6)])
def test_chance_has_the_variance_of_all_ways_to_deal_the_classes(positives, negatives):
    total = positives + negatives
    scores = torch.arange(total).float()
    areas = []
    for chosen in combinations(range(total), positives):
        mask = torch.zeros(total, dtype=torch.bool)
        mask[list(chosen)] = True
        areas.append(area_under_curve(scores, mask))
    assert sum(areas) / len(areas) == pytest.approx(0.5)
    expected = 0.5 + 1.96 * math.sqrt(pvariance(areas))
    assert least_area_above_chance(positives, negatives) == pytest.approx(expected)


def test_without_a_class_no_area_is_enough():
    assert least_area_above_chance(0, 9) == math.inf


def test_both_classes_count_the_same():
    positive, negative = class_weights(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert (positive, negative) == pytest.approx((2.0, 4 / 6))
    assert positive * 1 == pytest.approx(negative * 3)


def test_logistic_loss_by_hand():
    logits = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    targets = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)  # of the last, half say so
    terms = [
        math.log1p(math.exp(-2.0)),
        math.log1p(math.exp(-1.0)),
        0.5 * math.log1p(math.exp(-0.5)) + 0.5 * math.log1p(math.exp(0.5)),
    ]
    # One and a half of three are positive: both weights are 1.
    assert float(weighted_logistic_loss(logits, targets)) == pytest.approx(sum(terms) / 3)
    two = weighted_logistic_loss(logits[[0, 1, 1]], targets[[0, 1, 1]])
    assert float(two) == pytest.approx((1.5 * terms[0] + 2 * 0.75 * terms[1]) / 3)
