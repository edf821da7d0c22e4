"""Temperature and calibration error against planted and hand-computed ones."""

from __future__ import annotations

import math

import pytest
import torch

from chatrlhf.maths.calibration import (
    cross_fitted_error,
    expected_calibration_error,
    fitted_temperature,
)


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_recovered(planted):
    generator = torch.Generator().manual_seed(1)
    margins = torch.randn(60_000, generator=generator, dtype=torch.float64) * 2 * planted
    better_won = torch.rand(60_000, generator=generator) < torch.sigmoid(margins / planted)
    seen = torch.where(better_won, margins, -margins)
    assert fitted_temperature(seen) == pytest.approx(planted, rel=0.04)


def test_the_best_temperature_of_two_margins_by_hand():
    # Margins 1 won 3 times and lost once: sigmoid(1 / T) = 3/4, so T = 1 / ln 3.
    assert fitted_temperature(torch.tensor([1.0, 1.0, 1.0, -1.0])) == pytest.approx(
        1 / math.log(3), rel=1e-4
    )


def test_temperature_stays_within_its_limits():
    assert fitted_temperature(torch.tensor([1.0, 2.0])) == pytest.approx(0.05, rel=0.01)
    assert fitted_temperature(torch.tensor([-1.0, -2.0])) == pytest.approx(20.0, rel=0.01)


def test_no_comparisons_are_perfectly_calibrated():
    assert fitted_temperature(torch.zeros(0)) == 1.0
    assert expected_calibration_error(torch.zeros(0)) == 0.0


def test_calibration_error_by_hand():
    # Confidence 3/4 (margin ln 3): right in 1 of 4. Confidence 9/10 (ln 9): right in 4 of 4.
    margins = torch.tensor([math.log(3)] + [-math.log(3)] * 3 + [math.log(9)] * 4)
    expected = 0.5 * abs(0.75 - 0.25) + 0.5 * abs(0.9 - 1.0)
    assert expected_calibration_error(margins) == pytest.approx(expected, abs=1e-6)
    # At temperature 1/2 the confidences are 9/10 and 81/82.
    cold = 0.5 * abs(0.9 - 0.25) + 0.5 * abs(81 / 82 - 1.0)
    assert expected_calibration_error(margins, 0.5) == pytest.approx(cold, abs=1e-6)


def test_one_bin_compares_the_means():
    margins = torch.tensor([math.log(3), -math.log(9)])
    expected = abs((0.75 + 0.9) / 2 - 0.5)
    assert expected_calibration_error(margins, bins=1) == pytest.approx(expected, abs=1e-6)


def test_certain_and_right_has_no_error_and_certain_and_wrong_has_the_whole():
    assert expected_calibration_error(torch.full((5,), 60.0)) == pytest.approx(0.0, abs=1e-9)
    assert expected_calibration_error(torch.full((5,), -60.0)) == pytest.approx(1.0, abs=1e-9)


def test_each_fold_is_judged_at_the_temperature_of_the_others():
    # Fold 0: margin 1 won 3 of 4, so T = 1 / ln 3. Fold 1: margin 2 won 9 of 10, T = 2 / ln 9.
    first, second = [1.0, 1.0, 1.0, -1.0], [2.0] * 9 + [-2.0]
    folds = torch.tensor([0] * 4 + [1] * 10)
    found = cross_fitted_error(torch.tensor(first + second), folds)
    assert 2 / math.log(9) == pytest.approx(1 / math.log(3))  # the same, so both are calibrated
    assert found == pytest.approx(0.0, abs=1e-4)
    # Fold 1 at margin 1 instead: its own T is 1 / ln 9. Each is judged at the other's.
    found = cross_fitted_error(torch.tensor(first + [m / 2 for m in second]), folds)
    assert found == pytest.approx((4 * abs(0.9 - 0.75) + 10 * abs(0.75 - 0.9)) / 14, abs=1e-4)


def test_one_fold_has_no_others_and_stays_as_it_is():
    margins = torch.tensor([math.log(3), -math.log(3)])
    found = cross_fitted_error(margins, torch.tensor([0, 0]))
    assert found == pytest.approx(abs(0.75 - 0.5), abs=1e-6)
