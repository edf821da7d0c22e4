"""Which of several candidates are shown, and in which order.

Notation: M candidates, K shown.

    random             K of the M, all alike likely: the control arm, unbiased
    best               the K of the highest score
    best-and-random    the best one, and K - 1 of the others at random, so that rankings go on
                       telling the reward model about replies that it does not favour

Ties go to the earlier candidate. But for ``random``, a text that another candidate has too is shown
only when there are too few different ones. Each chosen one has its propensity, the probability
with which the policy shows it, given the candidates; positions are shuffled, so they tell nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chatrlhf.settings import ChoicePolicy

BEST, RANDOM = "best", "random"


@dataclass(frozen=True)
class Candidate:
    """A reply that may be shown: its row in the request, its text and its score."""

    row: int
    text: str
    score: float = 0.0


@dataclass(frozen=True)
class Shown:
    """A candidate that is shown. ``slot_type`` is ``best`` or ``random``."""

    row: int
    slot_type: str
    propensity: float


def choose(
    policy: ChoicePolicy, candidates: Sequence[Candidate], shown: int, seed: int
) -> tuple[Shown, ...]:
    """Choose ``shown`` of the candidates, in the order of their positions on the page.

    The same arguments give the same choice. There must be as many candidates at least.
    """
    if not 1 <= shown <= len(candidates):
        raise ValueError(f"{shown} of {len(candidates)} candidates cannot be shown")
    draw = random.Random(f"choice {seed}")
    picked = _POLICIES[policy](candidates, shown, draw)
    draw.shuffle(picked)
    return tuple(picked)


def _random(candidates: Sequence[Candidate], shown: int, draw: random.Random) -> list[Shown]:
    return _sampled([one.row for one in candidates], shown, draw)


def _best(candidates: Sequence[Candidate], shown: int, _draw: random.Random) -> list[Shown]:
    different, repeated = _split(_by_score(candidates))
    return [Shown(one.row, BEST, 1.0) for one in (different + repeated)[:shown]]


def _best_and_random(
    candidates: Sequence[Candidate], shown: int, draw: random.Random
) -> list[Shown]:
    different, repeated = _split(_by_score(candidates))
    best, others = different[0], [one.row for one in different[1:]]
    picked = [Shown(best.row, BEST, 1.0), *_sampled(others, min(shown - 1, len(others)), draw)]
    return picked + _sampled([one.row for one in repeated], shown - len(picked), draw)


_Policy = Callable[[Sequence[Candidate], int, random.Random], list[Shown]]
_POLICIES: dict[ChoicePolicy, _Policy] = {
    "random": _random,
    "best": _best,
    "best-and-random": _best_and_random,
}


def _sampled(rows: Sequence[int], count: int, draw: random.Random) -> list[Shown]:
    return [Shown(row, RANDOM, count / len(rows)) for row in draw.sample(rows, count)]


def _by_score(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda one: (-one.score, one.row))


def _split(ordered: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The first candidate of each text, and the rest; case and spaces make no other text."""
    different: list[Candidate] = []
    repeated: list[Candidate] = []
    seen: set[str] = set()
    for one in ordered:
        text = " ".join(one.text.split()).casefold()
        (repeated if text in seen else different).append(one)
        seen.add(text)
    return different, repeated
