"""What a turn is asked for, and the events that its readers get."""

from __future__ import annotations

from dataclasses import dataclass

from chatrlhf.engine.requests import Sampling
from storage.records import FinishReason, Turn


@dataclass(frozen=True)
class NewTurn:
    """A prompt and how it is to be answered.

    Without ``parent_reply_id`` the turn continues from the best reply so far; ``from_root`` makes
    it a sibling of the first turn instead.
    """

    text: str
    replies: int
    seed: int
    sampling: Sampling
    parent_reply_id: int | None = None
    from_root: bool = False
    versions: tuple[str, ...] = ()


@dataclass(frozen=True)
class TurnStarted:
    """The rows exist; ``turn`` holds them, still empty."""

    turn: Turn


@dataclass(frozen=True)
class ReplyDelta:
    """More text of a reply."""

    reply_id: int
    position: int
    text: str


@dataclass(frozen=True)
class ReplyDone:
    """A reply ended and is stored."""

    reply_id: int
    position: int
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True)
class TurnDone:
    """All replies ended."""

    turn_id: int


@dataclass(frozen=True)
class TurnFailed:
    """The turn, or the storing of a part of it, failed."""

    code: str
    message: str
    http_status: int


TurnEvent = TurnStarted | ReplyDelta | ReplyDone | TurnDone | TurnFailed
