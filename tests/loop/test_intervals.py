from __future__ import annotations

import math

import numpy as np
import pytest

from chatrlhf.loop.intervals import bootstrap_interval, sign_test, wilson_interval


def test_wilson_matches_published_numbers() -> None:
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I,
    # method 3: 81/263, 15/148, 0/20 and 1/29.
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        interval = wilson_interval(successes, trials)
        assert interval.low == pytest.approx(low, abs=5e-5)
        assert interval.high == pytest.approx(high, abs=5e-5)
        assert interval.estimate == successes / trials


def test_wilson_by_hand_for_one_of_two_with_z_of_one() -> None:
    # Confidence erf(1/sqrt 2) has z = 1: (0.5 + 1/4) / 1.5 = 0.5, half width
    # sqrt(0.25/2 + 1/16) / 1.5 = sqrt(0.1875) / 1.5 = 0.288675.
    interval = wilson_interval(1, 2, confidence=math.erf(1 / math.sqrt(2)))
    assert interval.low == pytest.approx(0.5 - 0.2886751, abs=1e-6)
    assert interval.high == pytest.approx(0.5 + 0.2886751, abs=1e-6)


def test_wilson_without_trials_says_nothing() -> None:
    interval = wilson_interval(0, 0)
    assert math.isnan(interval.estimate)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_wilson_takes_half_wins_and_stays_a_share() -> None:
    assert wilson_interval(2.5, 5).estimate == 0.5
    assert wilson_interval(7, 7).high == 1.0
    assert wilson_interval(0, 7).low == 0.0


def test_wilson_refuses_impossible_counts() -> None:
    for successes, trials in [(3, 2), (-1, 2)]:
        with pytest.raises(ValueError, match="impossible"):
            wilson_interval(successes, trials)


def test_bootstrap_of_a_two_point_sample_is_known_exactly() -> None:
    # Resamples of (0, 1) have mean 0, 1/2, 1 with chances 1/4, 1/2, 1/4: the 2.5% and 97.5%
    # points are 0 and 1, the 30% and 70% points are 1/2.
    assert bootstrap_interval([0.0, 1.0]) == (0.5, 0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5, 0.5)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_interval([3.0] * 5) == (3.0, 3.0, 3.0)


def test_bootstrap_agrees_with_the_normal_interval_on_many_values() -> None:
    values = np.random.default_rng(1).normal(2.0, 3.0, 400)
    interval = bootstrap_interval(values, seed=2)
    half_width = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.03)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        sample = generator.exponential(1.0, 40)
        interval = bootstrap_interval(sample, resamples=400, seed=trial)
        covered += interval.low <= 1.0 <= interval.high
    # 95% nominal; the percentile bootstrap of 40 skewed values is known to fall a little short.
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_of_a_ratio_draws_whole_rows() -> None:
    rows = np.array([[1.0, 2.0], [2.0, 4.0], [5.0, 10.0]])
    interval = bootstrap_interval(rows, lambda drawn: drawn[:, 0].sum() / drawn[:, 1].sum())
    assert interval == (0.5, 0.5, 0.5)


def test_bootstrap_repeats_with_its_seed_only() -> None:
    values = np.random.default_rng(4).normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_one_value_gives_no_ends_and_none_is_refused() -> None:
    assert bootstrap_interval([4.0]) == (4.0, -math.inf, math.inf)
    for values in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="finite"):
            bootstrap_interval(values)


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        # By hand: twice the lower tail of Pascal's row n over 2^n.
        (0, 0, 1.0),
        (4, 0, 2 * 1 / 16),
        (6, 0, 2 * 1 / 64),
        (7, 1, 2 * (1 + 8) / 256),
        (3, 9, 2 * (1 + 12 + 66 + 220) / 4096),
        (5, 5, 1.0),
    ],
)
def test_the_sign_test_by_hand(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p, abs=1e-12)
    assert sign_test(losses, wins) == sign_test(wins, losses)
