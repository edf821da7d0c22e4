"""How far people agree with each other, and with themselves.

Between people: Krippendorff's alpha for ordinal data. A unit is one reply, its values the ranks
that people gave it among the replies of its turn; ties share the mean of their places. Alpha is 1
where all agree and 0 where they agree no more than ranks drawn at random. As in

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D

    alpha = 1 - (n - 1) * sum_u sum_{c<k} n_uc n_uk d(c,k) / (m_u - 1)  /  sum_{c<k} n_c n_k d(c,k)
    d(c,k) = (n_c / 2 + sum_{c<g<k} n_g + n_k / 2) ** 2

where n_uc counts the value c in unit u, m_u all values of u (of units with two or more), n_c those
of all units, and n is their sum.

With oneself: pairs of replies that a hidden repeat put before the same person again. The pairs of
one repeat hang together, so a repeat is one trial of Wilson's interval, won by the share of its
pairs that were ordered alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatrlhf.loop.intervals import Interval, wilson_interval
from storage.records import RepeatedRanking

FEW_ITEMS = 10
FEW_REPEATS = 5
# Krippendorff (2004), "Content Analysis", 11.4.4: rely on data from 0.8, tentatively from 0.667.
_RELIABLE, _TENTATIVE = 0.8, 0.667

Shared = Mapping[int, Mapping[int, Mapping[int, int]]]  # rank by turn, person and reply


@dataclass(frozen=True)
class Agreement:
    """Alpha between people on ``items`` that two or more ranked; None where it is not defined."""

    alpha: float | None
    items: int
    people: int
    sentence: str


@dataclass(frozen=True)
class Consistency:
    """The share of pairs that were ordered alike both times, over ``repeats`` hidden repeats."""

    share: Interval
    repeats: int
    sentence: str


def ordinal_alpha(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of ordinal values; units with fewer than two of them do not count.

    None where it is not defined: nothing was valued twice, or all values are the same.
    """
    paired = [list(unit) for unit in units if len(unit) > 1]
    values = sorted({value for unit in paired for value in unit})
    if len(values) < 2:
        return None
    place = {value: index for index, value in enumerate(values)}
    counts = np.zeros((len(paired), len(values)))  # (units, values): n_uc
    for row, unit in enumerate(paired):
        for value in unit:
            counts[row, place[value]] += 1
    totals = counts.sum(axis=0)
    distance = _ordinal_distance(totals)
    sizes = counts.sum(axis=1)
    within = np.einsum("uc,uk,ck->u", counts, counts, distance) / (sizes - 1)
    expected = totals @ distance @ totals
    return float(1 - (totals.sum() - 1) * within.sum() / expected)


def _ordinal_distance(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """d(c,k) of all values, (values, values); ``totals`` says how often each occurs."""
    middle = np.cumsum(totals) - totals / 2
    distance: NDArray[np.float64] = (middle[:, None] - middle[None, :]) ** 2
    return distance


def mean_ranks(ranks: Sequence[int]) -> list[float]:
    """Places from 1 where ties share the mean of theirs: ranks 1, 2, 2 give 1, 2.5, 2.5."""
    return [
        sum(other < rank for other in ranks) + (sum(other == rank for other in ranks) + 1) / 2
        for rank in ranks
    ]


def agreement_between(shared: Shared) -> Agreement:
    """Alpha of what people made of the same replies."""
    units = []
    for people in shared.values():
        places: dict[int, list[float]] = {}
        for ranks in people.values():
            for reply_id, place in zip(ranks, mean_ranks(list(ranks.values())), strict=True):
                places.setdefault(reply_id, []).append(place)
        units += list(places.values())
    alpha = ordinal_alpha(units)
    raters = len({person for people in shared.values() for person in people})
    return Agreement(alpha, len(shared), raters, _agreement_sentence(alpha, len(shared), raters))


def _agreement_sentence(alpha: float | None, items: int, raters: int) -> str:
    if alpha is None:
        return (
            "No two people have ranked the same replies yet. Let each prompt be rated by two or "
            "more people, and this shows how far they agree."
        )
    number = f"Krippendorff's alpha is {alpha:.2f}"
    basis = f"{items} {'item' if items == 1 else 'items'} that {raters} people ranked"
    if items < FEW_ITEMS:
        return f"{number} on {basis}: too few to rely on. It says more from {FEW_ITEMS} items on."
    if alpha >= _RELIABLE:
        words = "people agree well"
    elif alpha >= _TENTATIVE:
        words = "people agree well enough for tentative conclusions"
    elif alpha > 0:
        words = "people agree little; talk about what a good reply is, or write it down"
    else:
        words = "people agree no more than chance; talk about what a good reply is"
    return f"{number} on {basis}: {words}. 1 is full agreement, 0 is chance."


def pairs_alike(repeat: RepeatedRanking) -> float:
    """The share of a repeat's pairs that were ordered alike; a tie on one side counts half."""
    alike = []
    for one, other in itertools.combinations(range(len(repeat.first)), 2):
        first = np.sign(repeat.first[one] - repeat.first[other])
        again = np.sign(repeat.again[one] - repeat.again[other])
        alike.append(1.0 if first == again else 0.5 if first * again == 0 else 0.0)
    return float(np.mean(alike))


def consistency_of(repeats: Sequence[RepeatedRanking]) -> Consistency:
    """How alike one person, or several, ordered the same replies twice."""
    share = wilson_interval(sum(map(pairs_alike, repeats)), len(repeats))
    return Consistency(share, len(repeats), _consistency_sentence(share, len(repeats)))


def _consistency_sentence(share: Interval, repeats: int) -> str:
    if not repeats:
        return (
            "Now and then the queue asks you something again, in another order. "
            "Once you have rated some of these, this shows how consistent you are."
        )
    times = "1 hidden repeat" if repeats == 1 else f"{repeats} hidden repeats"
    text = (
        f"In {times} you ordered {share.estimate:.0%} of the pairs as before "
        f"(95% interval {share.low:.0%} to {share.high:.0%})"
    )
    return f"{text}: too few to rely on." if repeats < FEW_REPEATS else f"{text}. Chance is 50%."
