"""What is kept of requests under load, and what it says of the swaps among them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from chatrlhf.engine.engine import Engine
from chatrlhf.engine.requests import (
    Completed,
    Delta,
    Failed,
    Finished,
    ReplyRequest,
    Started,
)
from chatrlhf.errors import ChatRLHFError

Interval = tuple[float, float]

_PATIENCE_SECONDS = 600.0
_WHOLE = ("stop", "length")


@dataclass
class Recorded:
    """One request and its answer; times are ``time.perf_counter``.

    ``texts`` are the times at which new text of any reply came while all replies ran; ``rows``
    those of each reply.
    """

    request: ReplyRequest
    started: float | None = None
    first: float | None = None
    ended: float | None = None
    versions: tuple[str, ...] = ()
    texts: list[float] = field(default_factory=list)
    rows: dict[int, list[float]] = field(default_factory=dict)
    finished: dict[int, Finished] = field(default_factory=dict)
    failure: str | None = None

    @property
    def is_dropped(self) -> bool:
        """Whether it failed, or a reply was cut short or is missing."""
        whole = [one for one in self.finished.values() if one.finish_reason in _WHOLE]
        return self.failure is not None or len(whole) < self.request.replies

    @property
    def streaming(self) -> Interval | None:
        """From the first text to the end."""
        return None if self.first is None or self.ended is None else (self.first, self.ended)

    @property
    def prompting(self) -> Interval | None:
        """From its admission to its first text: its prompt is run."""
        return None if self.started is None or self.first is None else (self.started, self.first)

    def replies(self) -> dict[int, tuple[int, ...]]:
        """Tokens of the replies that ended."""
        return {row: one.token_ids for row, one in self.finished.items()}

    def note(self, event: Started | Delta | Finished | Completed | Failed, now: float) -> None:
        """Keep what an event says."""
        if isinstance(event, Started):
            self.started, self.versions = now, event.versions
        elif isinstance(event, Delta):
            self.first = self.first or now
            if not self.finished:
                self.texts.append(now)
                self.rows.setdefault(event.row, []).append(now)
        elif isinstance(event, Finished):
            self.first = self.first or now
            self.finished[event.row] = event
        elif isinstance(event, Failed):
            self.failure = event.message


def record(engine: Engine, kept: Recorded) -> Iterator[Recorded]:
    """Submit a request and read its answer; yields after each event, ended at the last."""
    try:
        stream = engine.submit(kept.request)
    except ChatRLHFError as error:
        kept.failure, kept.ended = str(error), time.perf_counter()
        yield kept
        return
    while kept.ended is None:
        event = stream.next_event(_PATIENCE_SECONDS)
        now = time.perf_counter()
        if event is None:
            kept.failure = f"nothing came in {_PATIENCE_SECONDS:g} s"
        else:
            kept.note(event, now)
        if event is None or isinstance(event, Completed | Failed):
            kept.ended = now
        yield kept


def recorded(engine: Engine, request: ReplyRequest) -> Recorded:
    """Submit a request and wait for the end of its answer."""
    kept = Recorded(request)
    for _ in record(engine, kept):
        pass
    return kept


@dataclass(frozen=True)
class Publication:
    """One version: its files were there at ``began``, new requests get it from ``flipped`` on.

    ``first`` is when the first text came of a request that was made at once. ``retries`` counts
    how often no place in memory was free for it.
    """

    version: str
    began: float
    flipped: float
    first: float
    retries: int = 0

    @property
    def swap(self) -> Interval:
        """In which the swap could disturb streams."""
        return self.began, self.flipped


@dataclass(frozen=True)
class Pauses:
    """Gaps between texts of running streams, in seconds.

    A usual step is the median gap of one reply where nothing was published and no prompt was run.
    Pauses are the longest gaps of streams all of whose replies ran, less that step: while a version
    was published, the same but for gaps in which a prompt of another request was run, and where
    neither was. None where there was no such gap.
    """

    usual_step: float
    while_publishing_or_prompting: float | None
    while_publishing: float | None
    otherwise: float | None
    gaps_while_publishing: int


def pauses_of(streams: Sequence[Recorded], publications: Sequence[Publication]) -> Pauses:
    """What swaps did to the streams that ran.

    Raises:
        ValueError: no reply has a gap that nothing disturbed.
    """
    swaps = [one.swap for one in publications]
    prompts = [one.prompting for one in streams if one.prompting]
    of_rows = [gap for one in streams for times in one.rows.values() for gap in gaps(times)]
    steps = [end - start for start, end in outside(outside(of_rows, swaps), prompts)]
    if not steps:
        raise ValueError("no reply ran undisturbed; lengthen the pause between swaps")
    usual = statistics.median(steps)
    of_streams = [gap for one in streams for gap in gaps(one.texts)]
    publishing = [gap for gap in of_streams if touches(gap, swaps)]
    clear = list(outside(publishing, prompts))
    otherwise = list(outside(outside(of_streams, swaps), prompts))

    def longest(found: Sequence[Interval]) -> float | None:
        return max((end - start for start, end in found), default=usual) - usual if found else None

    return Pauses(usual, longest(publishing), longest(clear), longest(otherwise), len(publishing))


def gaps(times: Sequence[float]) -> list[Interval]:
    """From each time to the next."""
    return list(itertools.pairwise(times))


def touches(one: Interval, others: Iterable[Interval]) -> bool:
    """Whether an interval has a moment in common with any of the others."""
    return any(one[0] < end and start < one[1] for start, end in others)


def outside(found: Iterable[Interval], others: Sequence[Interval]) -> Iterator[Interval]:
    """The intervals that touch none of the others."""
    return (one for one in found if not touches(one, others))


def in_flight(streams: Sequence[Recorded], publications: Sequence[Publication]) -> list[Recorded]:
    """The requests that streamed while a version was published."""
    swaps = [one.swap for one in publications]
    return [one for one in streams if one.streaming and touches(one.streaming, swaps)]


def altered_replies(under_load: Recorded, alone: Recorded) -> int:
    """Replies whose tokens, or whose version, are not the same in two runs of one request."""
    ours, theirs = under_load.replies(), alone.replies()
    rows = range(under_load.request.replies)
    is_same_version = under_load.versions == alone.versions
    return sum(not is_same_version or ours.get(row) != theirs.get(row) for row in rows)
