"""Masked statistics against hand-computed numbers; whatever lies in padding has no effect."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatrlhf.maths.masked import (
    masked_mean,
    masked_row_sum,
    masked_sum,
    masked_variance,
    masked_whiten,
)

# Rows [1, 2, 3, -] and [6, -, -, -]; the numbers that count are 1, 2, 3, 6.
VALUES = torch.tensor([[1.0, 2.0, 3.0, math.nan], [6.0, math.inf, -7.0, math.nan]])
MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])

rows = st.lists(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=6), min_size=1, max_size=5
)


def padded(lists, width, filler):
    values = torch.full((len(lists), width), filler)
    mask = torch.zeros(len(lists), width, dtype=torch.bool)
    for row, one in enumerate(lists):
        values[row, : len(one)] = torch.tensor(one)
        mask[row, : len(one)] = True
    return values, mask


def test_sums_and_mean_count_only_true_positions():
    assert masked_sum(VALUES, MASK).item() == 12.0
    assert masked_mean(VALUES, MASK).item() == 3.0
    assert masked_row_sum(VALUES, MASK).tolist() == [6.0, 6.0]


def test_variance_is_the_unbiased_one():
    # Deviations from 3 are -2, -1, 0, 3; squares sum to 14; three degrees of freedom.
    assert masked_variance(VALUES, MASK).item() == pytest.approx(14 / 3)


def test_whitening_by_hand_and_zero_in_padding():
    scale = math.sqrt(14 / 3)
    expected = torch.tensor([[-2.0, -1.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]]) / scale
    assert torch.allclose(masked_whiten(VALUES, MASK), expected, atol=1e-6)


def test_nothing_that_counts_gives_zero_and_not_nan():
    nothing = torch.zeros_like(MASK)
    assert masked_mean(VALUES, nothing).item() == 0.0
    assert masked_variance(VALUES, nothing).item() == 0.0
    assert masked_whiten(VALUES, nothing).abs().sum().item() == 0.0


def test_one_value_whitens_to_zero():
    one = torch.zeros_like(MASK)
    one[1, 0] = True
    assert masked_whiten(VALUES, one).abs().sum().item() == 0.0


@settings(max_examples=40, deadline=None)
@given(lists=rows, extra=st.integers(0, 4), filler=st.sampled_from([0.0, 1e9, math.nan, math.inf]))
def test_padding_of_any_width_and_content_changes_nothing(lists, extra, filler):
    longest = max(map(len, lists))
    plain, plain_mask = padded(lists, longest, 0.0)
    values, mask = padded(lists, longest + extra, filler)
    flat = [number for one in lists for number in one]
    mean = statistics.fmean(flat)
    variance = statistics.variance(flat) if len(flat) > 1 else 0.0
    assert masked_mean(values, mask).item() == pytest.approx(mean, abs=1e-4)
    assert masked_variance(values, mask).item() == pytest.approx(variance, rel=1e-4, abs=1e-4)
    whitened = masked_whiten(values, mask)
    assert torch.isfinite(whitened).all()
    assert torch.allclose(whitened[mask], masked_whiten(plain, plain_mask)[plain_mask], atol=1e-4)
    assert bool((whitened[~mask] == 0).all())


@settings(max_examples=40, deadline=None)
@given(lists=rows)
def test_whitened_values_have_mean_zero_and_variance_one(lists):
    flat = [number for one in lists for number in one]
    if len(flat) < 2 or statistics.variance(flat) < 1e-2:
        return
    values, mask = padded(lists, max(map(len, lists)), math.nan)
    whitened = masked_whiten(values, mask)[mask].tolist()
    assert statistics.fmean(whitened) == pytest.approx(0.0, abs=1e-3)
    assert statistics.variance(whitened) == pytest.approx(1.0, rel=1e-3)


def test_gradients_do_not_pass_through_padding():
    values = VALUES.clone().requires_grad_()
    masked_mean(values, MASK).backward()
    assert values.grad.tolist() == [[0.25, 0.25, 0.25, 0.0], [0.25, 0.0, 0.0, 0.0]]
