"""What a turn is asked for, and the events that its readers get."""

from __future__ import annotations

from dataclasses import dataclass

from chatrlhf.engine.requests import Sampling
from chatrlhf.settings import AskPolicy, ChoicePolicy
from storage.records import FinishReason, Turn


@dataclass(frozen=True)
class NewTurn:
    """A prompt and how it is to be answered.

    Without ``parent_reply_id`` the turn continues from the best reply so far; ``from_root`` makes
    it a sibling of the first turn instead. With more ``candidates`` than ``replies`` those shown
    are chosen by the policy ``choose``; 0 is none but the replies. ``versions`` names one version a
    reply, empty for the live one; ``slot_type`` says why (see `storage.records.NewReply`). ``ask``
    says whether the turn is to be ranked; `asking.ask_or_not` turns it into one reply, into all of
    them, or into ``doubt``, which decides when the candidates are scored.
    """

    text: str
    replies: int
    seed: int
    sampling: Sampling
    parent_reply_id: int | None = None
    from_root: bool = False
    versions: tuple[str, ...] = ()
    slot_type: str = "policy"
    candidates: int = 0
    choose: ChoicePolicy = "best-and-random"
    ask: Ask | None = None
    doubt: Doubt | None = None


@dataclass(frozen=True)
class Ask:
    """When a turn is to be ranked; see `ChatSettings` for the meaning of its fields."""

    policy: AskPolicy
    one_in: int
    below: float
    anyway: float


@dataclass(frozen=True)
class Doubt:
    """Ask where the reward model is less sure than ``below``, and ``anyway`` by chance."""

    below: float
    anyway: float


@dataclass(frozen=True)
class TurnStarted:
    """The rows exist; ``turn`` holds them, still empty."""

    turn: Turn


@dataclass(frozen=True)
class TurnAsked:
    """The turn is to be ranked after all; ``turn`` holds all of its rows now."""

    turn: Turn


@dataclass(frozen=True)
class TurnChoosing:
    """How far the candidates are, of which some will be shown; no reply has text before."""

    turn_id: int
    written: int
    candidates: int
    replies: int
    is_scoring: bool = False


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


TurnEvent = TurnStarted | TurnAsked | TurnChoosing | ReplyDelta | ReplyDone | TurnDone | TurnFailed
