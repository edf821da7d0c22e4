"""How strongly people prefer versions: Bradley-Terry strengths and win rates at equal length.

Both are logistic regressions, fitted by Newton's method with a weak Gaussian prior, which keeps
them finite where one side won every vote. Intervals are percentile bootstraps over prompts (votes
on one prompt are drawn together), and at least normal intervals with two more votes each way: where
all votes went one way, so do all resamples, and a bootstrap alone would be sure after two votes.
numpy only; every draw comes from a seed.

Notation: N votes, P coefficients, R resamples.

    Bradley-Terry          p(a preferred to b) = sigmoid(strength_a - strength_b)
    win rate at length 0   p(newer preferred)  = sigmoid(bias + slope * words_more / deviation)

Bradley and Terry (1952), "Rank analysis of incomplete block designs". Length control by regression:
Dubois et al. (2024), arXiv 2404.04475, which squeezes the difference by tanh; here it is linear.
Agresti and Coull (1998), "Approximate is better than exact", for the added votes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from chatrlhf.loop.intervals import Interval

Values = NDArray[np.float64]

RESAMPLES = 1000
CONFIDENCE = 0.95
# Of a coefficient, in log-odds: one deviation is a win rate of 95%.
PRIOR_DEVIATION = 3.0
LEAST_LENGTH_VOTES = 10
_STEPS = 60
_LARGEST_STEP = 1.0
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Vote:
    """What a person preferred in one blind turn.

    ``outcome`` is 1 where the newer version was preferred, 0 where the older one, 0.5 a tie.
    ``words_more``: mean words of the newer one's replies less those of the older one's. Votes with
    one ``prompt`` are not independent.
    """

    newer: str
    older: str
    outcome: float
    words_more: float
    prompt: str


def version_number(name: str) -> int:
    """The number of a version's name, by which versions are ordered."""
    return int(name.removeprefix("v"))


def fit_logistic(
    design: Values,
    targets: Values,
    weights: Values,
    prior_deviation: float = PRIOR_DEVIATION,
) -> Values:
    """Coefficients that maximise the weighted likelihood and the prior, (R, P).

    Args:
        design: (N, P).
        targets: (N,) in 0 to 1; 0.5 is a tie, half a success and half a failure.
        weights: (R, N), one row a resample.
        prior_deviation: of each coefficient; infinite for none.
    """
    resamples, size = len(weights), design.shape[1]
    precision = 0.0 if math.isinf(prior_deviation) else prior_deviation**-2
    found = np.zeros((resamples, size))
    ridge = np.eye(size) * max(precision, 1e-12)
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), size * size)
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(found @ design.T, -500.0, 500.0)))  # (R, N)
        slope = (weights * (targets - chance)) @ design - precision * found
        curvature = (weights * chance * (1.0 - chance) @ products).reshape(resamples, size, size)
        step = np.linalg.solve(curvature + ridge, slope[..., None])[..., 0]
        # A full Newton step can overshoot where one side wins nearly always.
        largest = np.abs(step).max(axis=1, keepdims=True)
        step *= np.minimum(1.0, _LARGEST_STEP / np.maximum(largest, _TOLERANCE))
        found += step
        if np.abs(step).max(initial=0.0) < _TOLERANCE:
            break
    return found


def strengths(
    votes: Sequence[Vote],
    anchor: str,
    *,
    prior_deviation: float = PRIOR_DEVIATION,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Bradley-Terry strengths less that of ``anchor``, in log-odds, of the versions tied to it.

    A version that no chain of votes leads to from the anchor cannot be compared, and is left out.
    """
    names = sorted(_connected(votes, anchor), key=version_number)
    place = {name: index for index, name in enumerate(names)}
    own = [vote for vote in votes if vote.newer in place]
    if not own:
        return {}
    design = np.zeros((len(own), len(names)))
    for row, vote in enumerate(own):
        design[row, place[vote.newer]] = 1.0
        design[row, place[vote.older]] = -1.0
    targets = np.array([vote.outcome for vote in own])
    weights = _weights(own, resamples, seed)
    fitted = fit_logistic(design, targets, weights, prior_deviation)
    fitted -= fitted[:, [place[anchor]]]
    contrasts = np.eye(len(names)) - np.eye(len(names))[place[anchor]]
    normal = _normal_intervals(design, targets, np.unique(design, axis=0), contrasts)
    return {name: _interval(fitted[:, index], normal[index], own) for name, index in place.items()}


def length_controlled(
    votes: Sequence[Vote],
    *,
    prior_deviation: float = PRIOR_DEVIATION,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """How often the newer version would be preferred if replies were equally long.

    None with fewer than ``LEAST_LENGTH_VOTES`` votes, or where all differ alike in length.
    """
    if len(votes) < LEAST_LENGTH_VOTES:
        return None
    words = np.array([vote.words_more for vote in votes])
    deviation = float(words.std())
    if deviation < 1e-9:
        return None
    design = np.stack([np.ones(len(votes)), words / deviation], axis=1)
    targets = np.array([vote.outcome for vote in votes])
    weights = _weights(votes, resamples, seed)
    fitted = fit_logistic(design, targets, weights, prior_deviation)
    [normal] = _normal_intervals(design, targets, np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
    return Interval(*map(_share, _interval(fitted[:, 0], normal, votes)))


def _connected(votes: Sequence[Vote], anchor: str) -> set[str]:
    """The versions that a chain of votes ties to the anchor, the anchor among them."""
    found, newest = {anchor}, {anchor}
    while newest:
        beside = {vote.older for vote in votes if vote.newer in newest}
        beside |= {vote.newer for vote in votes if vote.older in newest}
        newest = beside - found
        found |= newest
    return found


def _weights(votes: Sequence[Vote], resamples: int, seed: int) -> Values:
    """How often each vote counts, (1 + R, N): once in the first row, then by drawn prompts."""
    prompts = {name: index for index, name in enumerate(dict.fromkeys(v.prompt for v in votes))}
    of_vote = np.array([prompts[vote.prompt] for vote in votes])
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), resamples)
    counts = np.concatenate([np.ones((1, len(prompts))), drawn])
    return np.asarray(counts[:, of_vote], dtype=np.float64)


def _normal_intervals(
    design: Values, targets: Values, met: Values, contrasts: Values
) -> list[tuple[float, float]]:
    """Ends of the normal interval of each contrast (C, P), with z^2 / 2 votes each way added.

    ``met`` (M, P): the comparisons that get them. Directions that no vote says anything of have no
    spread here; no contrast lies in one.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    rows = np.concatenate([design, met])
    weights = np.concatenate([np.ones(len(design)), np.full(len(met), z * z)])
    means = np.concatenate([targets, np.full(len(met), 0.5)])
    fitted = fit_logistic(rows, means, weights[None], math.inf)[0]
    chance = 1.0 / (1.0 + np.exp(-rows @ fitted))
    curvature = (rows * (weights * chance * (1.0 - chance))[:, None]).T @ rows
    covariance = np.linalg.pinv(curvature, hermitian=True)
    centres = contrasts @ fitted
    spread = z * np.sqrt(
        np.maximum(0.0, np.einsum("cp,pq,cq->c", contrasts, covariance, contrasts))
    )
    return list(zip((centres - spread).tolist(), (centres + spread).tolist(), strict=True))


def _interval(values: Values, normal: tuple[float, float], votes: Sequence[Vote]) -> Interval:
    """The first value, and the percentiles of the others or the normal ends, the wider each way.

    One prompt says nothing of the spread.
    """
    estimate = float(values[0])
    if len({vote.prompt for vote in votes}) < 2:
        return Interval(estimate, -math.inf, math.inf)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return Interval(estimate, min(float(low), normal[0]), max(float(high), normal[1], estimate))


def _share(log_odds: float) -> float:
    return 0.0 if log_odds == -math.inf else 1.0 / (1.0 + math.exp(-log_odds))
