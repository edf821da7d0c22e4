"""A turn while its replies come, and what its rows and readers are told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chatrlhf.engine.requests import Sampling
from chatrlhf.loop.choosing import Choosing
from chatrlhf.loop.ports import ReplyStream
from chatrlhf.loop.relay import EventLog
from chatrlhf.loop.turn_events import TurnChoosing, TurnEvent
from storage.conversations import NewReply
from storage.records import Reply, Turn


@dataclass
class LiveTurn:
    """A turn whose replies still stream, or whose candidates are still written."""

    turn: Turn
    stream: ReplyStream
    choosing: Choosing | None = None
    log: EventLog[TurnEvent] = field(default_factory=EventLog)
    texts: dict[int, str] = field(default_factory=dict)
    open_rows: set[int] = field(default_factory=set)
    admitted: bool = False
    refused: bool = False
    abandoned: bool = False

    def reply(self, row: int) -> Reply:
        """The reply of an engine row, or at a position: both have the same order."""
        return self.turn.replies[row]


def progress_of(live: LiveTurn, choosing: Choosing, *, is_scoring: bool = False) -> TurnChoosing:
    """How far the candidates of a turn are, as its readers are told."""
    return TurnChoosing(
        turn_id=live.turn.id,
        written=len(choosing.finished),
        candidates=choosing.candidates,
        replies=choosing.shown,
        is_scoring=is_scoring,
    )


def sampling_record(sampling: Sampling) -> dict[str, Any]:
    """The sampling settings as they are stored with each reply."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_new_tokens": sampling.max_new_tokens,
        "stop": list(sampling.stop),
    }


def reply_rows(
    versions: tuple[str, ...], seed: int, sampling: Sampling, slot_type: str = "policy"
) -> list[NewReply]:
    """One row a version, in shown order."""
    record = sampling_record(sampling)
    return [
        NewReply(position, version, seed, record, slot_type)
        for position, version in enumerate(versions)
    ]
