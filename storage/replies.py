"""The replies of a turn: streaming, then finished once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import sqlite_utils

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.database import Database, insert
from storage.records import Chosen, FinishReason, NewReply, Reply, ReplyState
from storage.values import (
    checked_integer,
    checked_text,
    generated_text,
    pack_floats,
    pack_integers,
    sha256_of,
    to_json,
    unpack_floats,
    unpack_integers,
)

RANKABLE = ("complete", "cancelled")
IMPORTED = "imported"  # the slot type of replies that came with a data set

ENDINGS: dict[str, tuple[str, ...]] = {
    "complete": ("stop", "length"),
    "cancelled": ("cancelled",),
    "interrupted": ("interrupted",),
}


def insert_reply(
    connection: sqlite_utils.Database, turn_id: int, row: NewReply, created_at: str
) -> int:
    """Insert one streaming reply in the caller's transaction; returns its id."""
    return insert(
        connection,
        "replies",
        {
            "turn_id": turn_id,
            "position": row.position,
            "text": "",
            "text_sha256": sha256_of(""),
            "token_ids": b"",
            "logprobs": b"",
            "version": checked_text(row.version, "the version", may_be_blank=True, limit=100),
            "seed": checked_integer(row.seed, "the seed"),
            "sampling": to_json(row.sampling),
            "state": "streaming",
            "finish_reason": None,
            "slot_type": checked_text(row.slot_type, "the slot type", limit=40),
            "candidate": row.position,
            "created_at": created_at,
        },
    )


def finish_reply(
    db: Database,
    reply_id: int,
    *,
    text: str,
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    finish_reason: FinishReason,
    state: ReplyState,
    chosen: Chosen | None = None,
) -> Reply:
    """Store what a streaming reply came to. NUL and lone surrogates in it become U+FFFD.

    Raises:
        BadInputError: ``finish_reason`` does not go with ``state``, or ``chosen`` has a value
            that cannot be.
        ConflictError: the reply has been finished before.
    """
    if finish_reason not in ENDINGS.get(state, ()):
        raise BadInputError(f"a reply cannot be {state!r} because of {finish_reason!r}")
    text = generated_text(text)
    if chosen is not None:
        _check_chosen(chosen)
    with db.transaction() as connection:
        before = get_reply(db, reply_id)
        if before.state != "streaming":
            raise ConflictError(f"reply {reply_id} is {before.state} already")
        connection.execute(
            "UPDATE replies SET text = ?, text_sha256 = ?, token_ids = ?, logprobs = ?, "
            "finish_reason = ?, state = ? WHERE id = ?",
            [
                text,
                sha256_of(text),
                pack_integers(token_ids),
                pack_floats(logprobs),
                finish_reason,
                state,
                reply_id,
            ],
        )
        if chosen is not None:
            connection.execute(
                "UPDATE replies SET slot_type = ?, candidate = ?, score = ?, propensity = ? "
                "WHERE id = ?",
                [chosen.slot_type, chosen.candidate, chosen.score, chosen.propensity, reply_id],
            )
    return get_reply(db, reply_id)


def _check_chosen(chosen: Chosen) -> None:
    checked_text(chosen.slot_type, "the slot type", limit=40)
    checked_integer(chosen.candidate, "the candidate")
    if not 0.0 < chosen.propensity <= 1.0:
        raise BadInputError(f"the propensity is {chosen.propensity}; it must be in (0, 1]")
    if chosen.score is not None and not math.isfinite(chosen.score):
        raise BadInputError(f"the score is {chosen.score}; it must be a number")


def set_reply_versions(db: Database, turn_id: int, versions: Sequence[str]) -> None:
    """Write which version gives each reply of the turn, in position order."""
    for version in versions:
        checked_text(version, "the version", limit=100)
    with db.transaction() as connection:
        known = db.rows("SELECT id FROM replies WHERE turn_id = ? ORDER BY position", [turn_id])
        if not known:
            raise NotFoundError(f"there is no turn {turn_id}")
        if len(versions) != len(known):
            raise BadInputError(
                f"turn {turn_id} has {len(known)} replies, but {len(versions)} versions came"
            )
        for row, version in zip(known, versions, strict=True):
            connection.execute("UPDATE replies SET version = ? WHERE id = ?", [version, row["id"]])


def get_reply(db: Database, reply_id: int, person_id: int | None = None) -> Reply:
    """One reply; with ``person_id``, NotFoundError also where `get_turn` has none for them."""
    row = db.row(
        "SELECT replies.* FROM replies JOIN turns ON turns.id = replies.turn_id "
        "JOIN conversations ON conversations.id = turns.conversation_id "
        "WHERE replies.id = :reply AND (:person IS NULL OR conversations.person_id = :person "
        "OR turns.id IN (SELECT turn_id FROM queue_assignments WHERE person_id = :person))",
        {"reply": reply_id, "person": person_id},
    )
    if row is None:
        raise NotFoundError(f"there is no reply {reply_id}")
    return reply_from(row)


def reply_from(row: dict[str, Any]) -> Reply:
    """The record of a full row of ``replies``."""
    del row["text_sha256"], row["created_at"]
    row["token_ids"] = unpack_integers(row["token_ids"])
    row["logprobs"] = unpack_floats(row["logprobs"])
    row["sampling"] = json.loads(row["sampling"])
    if row["candidate"] is None:  # older than choices
        row["candidate"] = row["position"]
    return Reply(**row)


def interrupt_streaming(db: Database) -> int:
    """Mark replies that a stopped server left streaming; returns how many."""
    with db.transaction() as connection:
        cursor = connection.execute(
            "UPDATE replies SET state = 'interrupted', finish_reason = 'interrupted' "
            "WHERE state = 'streaming'"
        )
        return int(cursor.rowcount)


def damaged_replies(db: Database) -> Iterator[int]:
    """Ids of replies whose text no longer has the hash it was stored with."""
    for row in db.rows("SELECT id, text, text_sha256 FROM replies"):
        if sha256_of(row["text"]) != row["text_sha256"]:
            yield row["id"]
