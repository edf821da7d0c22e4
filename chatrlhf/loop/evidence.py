"""Is it better? What blind rankings say of the versions, with intervals.

One blind turn is one vote: of its pairs of a newer and an older reply, did most go one way?
Counting each pair would make four votes of one opinion. How the numbers are made:
docs/evidence.md.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from chatrlhf.loop.intervals import Interval, sign_test, wilson_interval
from chatrlhf.loop.preferences import Vote, length_controlled, strengths, version_number
from storage.records import DUEL, REPLAY, BlindRanking, Prediction

_SURE_BELOW = 0.05


@dataclass(frozen=True)
class PairResult:
    """How often the newer of two versions was preferred; a tie counts half.

    ``at_equal_length`` is the win rate if replies were equally long, where that can be told.
    """

    newer: str
    older: str
    wins: int
    ties: int
    losses: int
    win_rate: Interval
    at_equal_length: Interval | None
    words_more: float

    @property
    def votes(self) -> int:
        """Blind turns."""
        return self.wins + self.ties + self.losses

    @property
    def is_better(self) -> bool:
        """Whether the newer one is surely preferred."""
        return _is_sure(self.wins, self.ties, self.losses) and self.wins > self.losses

    @property
    def is_worse(self) -> bool:
        """Whether the older one is surely preferred."""
        return _is_sure(self.wins, self.ties, self.losses) and self.wins < self.losses


@dataclass(frozen=True)
class Summary:
    """What is known of the versions.

    ``against_older`` is the live version against all older ones together. ``replays`` are of
    prompts chosen because they were answered badly, so they are counted apart. ``strengths`` are
    log-odds over the oldest version that is tied to the live one.
    """

    live: str
    against_older: PairResult | None
    pairs: tuple[PairResult, ...]
    replays: tuple[PairResult, ...]
    strengths: dict[str, Interval]
    anchor: str

    @property
    def worse_than(self) -> str | None:
        """The older version that is surely preferred to the live one, the most so."""
        worse = [pair for pair in self.pairs if pair.newer == self.live and pair.is_worse]
        return min(worse, key=lambda pair: pair.win_rate.estimate).older if worse else None


def vote_of(ranking: BlindRanking) -> Vote | None:
    """The vote of a blind ranking; None where it does not have replies of two versions."""
    names = sorted({reply.version for reply in ranking.replies}, key=_order)
    if len(names) != 2:
        return None
    older, newer = ([r for r in ranking.replies if r.version == name] for name in names)
    balance = sum(
        (old.rank > new.rank) - (old.rank < new.rank)
        for new, old in itertools.product(newer, older)
    )
    outcome = 0.5 if balance == 0 else float(balance > 0)
    words = [sum(len(r.text.split()) for r in side) / len(side) for side in (newer, older)]
    return Vote(names[1], names[0], outcome, words[0] - words[1], ranking.prompt)


def summarise(rankings: Sequence[BlindRanking], live: str) -> Summary:
    """What the blind rankings say, with ``live`` as the version in question."""
    of_kind: dict[str, list[Vote]] = defaultdict(list)
    for ranking in rankings:
        if (vote := vote_of(ranking)) is not None:
            of_kind[ranking.slot_type].append(vote)
    return _summarise(tuple(of_kind[DUEL]), tuple(of_kind[REPLAY]), live)


@lru_cache(maxsize=16)
def _summarise(duels: tuple[Vote, ...], replays: tuple[Vote, ...], live: str) -> Summary:
    own = [vote for vote in duels if vote.newer == live]
    tied = strengths(duels, live)
    anchor = min(tied, key=version_number, default=live)
    return Summary(
        live=live,
        against_older=_result(live, "", own) if own else None,
        pairs=_pairs(duels),
        replays=_pairs(replays),
        strengths=strengths(duels, anchor),
        anchor=anchor,
    )


def _pairs(votes: Sequence[Vote]) -> tuple[PairResult, ...]:
    """A result for each two versions, the newest first."""
    by_pair: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        by_pair[vote.newer, vote.older].append(vote)
    ordered = sorted(by_pair, key=lambda pair: [-version_number(name) for name in pair])
    return tuple(_result(newer, older, by_pair[newer, older]) for newer, older in ordered)


def _result(newer: str, older: str, votes: Sequence[Vote]) -> PairResult:
    wins = sum(vote.outcome == 1.0 for vote in votes)
    ties = sum(vote.outcome == 0.5 for vote in votes)
    return PairResult(
        newer=newer,
        older=older,
        wins=wins,
        ties=ties,
        losses=len(votes) - wins - ties,
        win_rate=wilson_interval(wins + ties / 2, len(votes)),
        at_equal_length=length_controlled(votes),
        words_more=sum(vote.words_more for vote in votes) / len(votes),
    )


def foretold(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Accuracy of the reward models on rankings that they had not learned from, as it came.

    ``points`` are running means, by ranking. Pairs of one ranking are not independent, so the
    interval takes as many trials as rankings, each with its share of right pairs.
    """
    points, right, pairs, share = [], 0, 0, 0.0
    for number, one in enumerate(predictions, start=1):
        right, pairs = right + one.right_pairs, pairs + one.pairs
        share += one.right_pairs / one.pairs
        points.append(
            {
                "ranking_id": one.ranking_id,
                "version": one.version,
                "right": one.right_pairs,
                "pairs": one.pairs,
                "so_far": interval_json(wilson_interval(share, number)),
            }
        )
    by_version = defaultdict(list)
    for one in predictions:
        by_version[one.version].append(one.right_pairs / one.pairs)
    return {
        "rankings": len(predictions),
        "pairs": pairs,
        "right": right,
        "accuracy": points[-1]["so_far"] if points else None,
        "by_version": [
            {
                "version": name,
                "rankings": len(shares),
                "accuracy": interval_json(wilson_interval(sum(shares), len(shares))),
            }
            for name, shares in sorted(by_version.items(), key=lambda item: _order(item[0]))
        ],
        "points": points,
    }


def votes_still_needed(result: PairResult, most: int = 2000) -> int | None:
    """How many more votes like those so far would settle it; None: more than ``most``."""
    if result.is_better or result.is_worse:
        return 0
    for votes in range(result.votes + 1, result.votes + most + 1):
        wins, losses = (round(side * votes / result.votes) for side in (result.wins, result.losses))
        if _is_sure(wins, max(0, votes - wins - losses), losses):
            return votes - result.votes
    return None


def _is_sure(wins: int, ties: int, losses: int) -> bool:
    """Whether the whole interval is on one side of one half, and the sign test agrees."""
    rate = wilson_interval(wins + ties / 2, wins + ties + losses)
    outside = rate.low > 0.5 or rate.high < 0.5
    return outside and sign_test(wins, losses) < _SURE_BELOW


def interval_json(interval: Interval | None) -> dict[str, float | None] | None:
    """An interval as JSON; an unbounded end, and an estimate of nothing, are null."""
    if interval is None:
        return None
    return {
        name: value if math.isfinite(value) else None for name, value in interval._asdict().items()
    }


def pair_json(result: PairResult) -> dict[str, Any]:
    """A result as JSON."""
    return {
        "newer": result.newer,
        "older": result.older or None,
        "wins": result.wins,
        "ties": result.ties,
        "losses": result.losses,
        "votes": result.votes,
        "win_rate": interval_json(result.win_rate),
        "at_equal_length": interval_json(result.at_equal_length),
        "words_more": result.words_more,
    }


def _order(name: str) -> int:
    """By number; names that are none, as of foreign replies, come first."""
    number = name.removeprefix("v")
    return int(number) if number.isdecimal() else -1
