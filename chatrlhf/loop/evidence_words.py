"""What is known of the live version, and what is not yet, as sentences for people."""

from __future__ import annotations

from chatrlhf.loop.evidence import PairResult, Summary, votes_still_needed
from chatrlhf.loop.intervals import Interval
from chatrlhf.loop.sentences import Sentence

_NEAR_EVEN = 0.03
_SMALL = 0.15  # a win rate surely this near to one half differs little

_ONLY_VERSION = (
    "Nothing is known yet: {live} is the only version. Once training has made the next one, some "
    "turns mix both without telling, and your rankings compare them."
)
_NO_DUELS = (
    "Nothing is known of {live} yet, and blind duels are off. Set chat.duels above 0, or replay a "
    "prompt below."
)
_NO_VOTES = (
    "Nothing is known of {live} yet: about {percent}% of the turns mix it with an older version, "
    "without telling. Chat and rank as always."
)
_YOU = "You preferred {live} in {wins} of {votes} blind turns ({share}, 95% interval {low}-{high})."
_TEAM = (
    "The team preferred {live} in {wins} of {votes} blind turns ({share}, 95% interval "
    "{low}-{high})."
)
_YOU_TIED = (
    "You preferred {live} in {wins} of {votes} blind turns, {ties} tied ({share}, 95% interval "
    "{low}-{high})."
)
_TEAM_TIED = (
    "The team preferred {live} in {wins} of {votes} blind turns, {ties} tied ({share}, 95% "
    "interval {low}-{high})."
)
_BETTER = "So {live} is better than what was before it."
_WORSE = "So {live} is worse than what was before it. Roll back, and rank on from there."
_EVEN = "That tells neither way: if there is a difference, it is small."
_OPEN = "That tells neither way yet. Chat and rank on: more blind turns come by themselves."
_ONE_MORE = "That is not sure yet: one more blind turn like these would settle it."
_MORE = "That is not sure yet: {needed} more blind turns like these would settle it."
_AS_LONG = "Replies are as long as before; at equal length: {share}, 95% interval {low}-{high}."
_LONGER = (
    "Its replies are {words} words longer; at equal length: {share}, 95% interval {low}-{high}."
)
_SHORTER = (
    "Its replies are {words} words shorter; at equal length: {share}, 95% interval {low}-{high}."
)


def verdict(
    summary: Summary, *, older_versions: int, share: float, is_team: bool = False
) -> list[Sentence]:
    """What is known and what is not.

    Args:
        summary: of the blind rankings.
        older_versions: how many versions can be an opponent now.
        share: of the turns that are duels.
        is_team: several people ranked.
    """
    live, result = summary.live, summary.against_older
    if result is None:
        return [_nothing_yet(live, older_versions, share)]
    return [_count(result, is_team=is_team), _meaning(result), *_length(result)]


def _nothing_yet(live: str, older_versions: int, share: float) -> Sentence:
    if not older_versions:
        return Sentence(_ONLY_VERSION, {"live": live})
    if share <= 0.0:
        return Sentence(_NO_DUELS, {"live": live})
    return Sentence(_NO_VOTES, {"live": live, "percent": round(100 * share)})


def _count(result: PairResult, *, is_team: bool) -> Sentence:
    counts: dict[str, str | int] = {
        "live": result.newer,
        "wins": result.wins,
        "votes": result.votes,
    }
    if result.ties:
        text = _TEAM_TIED if is_team else _YOU_TIED
        return Sentence(text, {**counts, "ties": result.ties, **_values(result.win_rate)})
    return Sentence(_TEAM if is_team else _YOU, {**counts, **_values(result.win_rate)})


def _meaning(result: PairResult) -> Sentence:
    if result.is_better:
        return Sentence(_BETTER, {"live": result.newer})
    if result.is_worse:
        return Sentence(_WORSE, {"live": result.newer})
    needed = votes_still_needed(result)
    if needed is None or abs(result.win_rate.estimate - 0.5) < _NEAR_EVEN:
        low, high = result.win_rate.low, result.win_rate.high
        is_small = low >= 0.5 - _SMALL and high <= 0.5 + _SMALL
        return Sentence(_EVEN if is_small else _OPEN)
    return Sentence(_ONE_MORE) if needed == 1 else Sentence(_MORE, {"needed": needed})


def _length(result: PairResult) -> list[Sentence]:
    even = result.at_equal_length
    if even is None:
        return []
    words = abs(round(result.words_more))
    if words == 0:
        return [Sentence(_AS_LONG, _values(even))]
    text = _LONGER if result.words_more > 0 else _SHORTER
    return [Sentence(text, {"words": words, **_values(even)})]


def _values(interval: Interval) -> dict[str, str | int]:
    return {
        "share": f"{interval.estimate:.0%}",
        "low": round(100 * interval.low),
        "high": round(100 * interval.high),
    }
