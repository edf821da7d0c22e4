"""What the parts of a restore share: counts of new rows, and values checked on their way in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

from chatrlhf.errors import BadInputError
from storage.archive import ArchivedReply, ArchivedTurn
from storage.conversations import MAX_REPLIES
from storage.replies import ENDINGS
from storage.values import (
    checked_integer,
    checked_text,
    pack_floats,
    pack_integers,
    sha256_of,
    to_json,
)

PersonId = Callable[[str], int]
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_GENERATED_LIMIT_BYTES = 4 * 1024 * 1024


class Wrote(Protocol):
    """Hears of each row that is new, in the transaction that writes it."""

    def __call__(self, kind: str, row_id: int, detail: str = "") -> None:
        """A row of a kind; ``detail`` tells it apart where its id does not."""


def unlogged(kind: str, row_id: int, detail: str = "") -> None:
    """For a restore that nobody will undo."""


@dataclass(frozen=True)
class Added:
    """How many rows of each kind were new."""

    conversations: int = 0
    turns: int = 0
    rankings: int = 0
    labels: int = 0
    demonstrations: int = 0
    prompts: int = 0

    def __add__(self, other: Added) -> Added:
        names = [column.name for column in fields(self)]
        return Added(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __bool__(self) -> bool:
        return self != Added()


def in_order(record: ArchivedTurn) -> list[ArchivedReply]:
    """The replies of a turn as they were shown."""
    return sorted(record.replies, key=lambda reply: reply.position)


def check_turn(record: ArchivedTurn) -> None:
    """BadInputError unless a turn can be written with its replies."""
    checked_text(record.text, "the message")
    checked_moment(record.created_at)
    places = [reply.position for reply in in_order(record)]
    if len(places) > MAX_REPLIES or places != list(range(len(places))):
        raise BadInputError(
            f"its replies are at {places[:70]}; they must be at 0 to K-1, each once"
        )
    for reply in record.replies:
        if reply.finish_reason not in ENDINGS.get(reply.state, ()):
            raise BadInputError(
                f"reply {reply.id} cannot be {reply.state} because of {reply.finish_reason!r}"
            )


def reply_row(reply: ArchivedReply) -> dict[str, Any]:
    """The columns of a reply but for its turn; BadInputError where one is refused."""
    text = checked_text(
        reply.text, f"reply {reply.id}", may_be_blank=True, limit=_GENERATED_LIMIT_BYTES
    )
    return {
        "position": checked_integer(reply.position, "the position"),
        "text": text,
        "text_sha256": sha256_of(text),
        "token_ids": pack_integers(reply.token_ids),
        "logprobs": pack_floats([float(number) for number in reply.logprobs]),
        "version": checked_text(reply.version, "the version", may_be_blank=True, limit=100),
        "seed": checked_integer(reply.seed, "the seed"),
        "sampling": to_json(reply.sampling),
        "state": reply.state,
        "finish_reason": reply.finish_reason,
        "slot_type": checked_text(reply.slot_type, "the slot type", limit=40),
        "candidate": reply.position if reply.candidate is None else reply.candidate,
        "score": reply.score,
        "propensity": reply.propensity,
        "created_at": checked_moment(reply.created_at),
    }


def checked_moment(text: str) -> str:
    """The time itself; BadInputError unless it is ISO 8601 in UTC."""
    if not _MOMENT.fullmatch(text):
        raise BadInputError(f"{text[:40]!r} is no time such as 2026-01-31T12:00:00.000Z")
    return text
