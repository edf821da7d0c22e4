"""Intervals that say how sure a number is: Wilson for shares, bootstrap for means.

numpy only. Every random draw comes from a seed, so a report can be made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and the two ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share.

    ``successes`` may be fractional: a tie counts half. Without trials the interval is 0 to 1
    and the estimate not a number.
    Wilson (1927), "Probable inference, the law of succession, and statistical inference".

    Raises:
        ValueError: more successes than trials, or a negative number.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials is impossible")
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    half_width = z * spread / (1 + z * z / trials)
    # Rounding must not push an end past the share, or beyond what a share can be.
    low, high = min(centre - half_width, share), max(centre + half_width, share)
    return Interval(share, max(0.0, low), min(1.0, high))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of "each side wins as often", from the binomial distribution itself.

    Ties are left out. Wilson's interval is narrower than this test allows where votes are few:
    four of four is 51-100 there, and p = 0.125 here.
    Dixon and Mood (1946), "The statistical sign test".
    """
    trials = wins + losses
    tail = sum(math.comb(trials, k) for k in range(min(wins, losses) + 1))
    return float(min(1.0, 2 * tail / 2**trials))


def bootstrap_interval(
    values: Sequence[float] | Values,
    statistic: Callable[[Values], float] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over the first axis of ``values``: one row is one unit (a prompt).

    ``statistic`` maps the drawn rows to a number; without it the mean of (N,) values is taken.
    A paired comparison is the bootstrap of the differences of each unit. With fewer than two
    units the interval is unbounded: one unit says nothing about the spread.
    Efron (1979), "Bootstrap methods: another look at the jackknife".

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) == 0 or not np.isfinite(data).all():
        raise ValueError("a bootstrap needs at least one value, and finite ones")
    estimate = float(data.mean()) if statistic is None else statistic(data)
    if len(data) < 2:
        return Interval(estimate, -math.inf, math.inf)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for index in range(resamples):
        rows = data[generator.integers(0, len(data), len(data))]
        drawn[index] = rows.mean() if statistic is None else statistic(rows)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))
