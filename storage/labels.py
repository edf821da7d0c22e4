"""Labels on single replies: toxic or not, wrong or not, good or not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.conversations import get_turn, messages_before
from storage.database import Database
from storage.records import Label, LabelledReply, Message
from storage.replies import RANKABLE, get_reply
from storage.values import now

_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,39}")


def save_label(
    db: Database,
    reply_id: int,
    person_id: int,
    label: str,
    value: bool,  # noqa: FBT001
) -> Label:
    """Say that ``label`` is (not) true of the reply; a later word of the person replaces it."""
    check_label(label)
    with db.transaction() as connection:
        if get_reply(db, reply_id).state not in RANKABLE:
            raise ConflictError(f"reply {reply_id} is not finished; label it when it is")
        if db.row("SELECT 1 FROM people WHERE id = ?", [person_id]) is None:
            raise NotFoundError(f"there is no person {person_id}")
        connection.execute(
            "INSERT INTO labels (reply_id, person_id, label, value, created_at) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT (reply_id, person_id, label) "
            "DO UPDATE SET value = excluded.value, created_at = excluded.created_at",
            [reply_id, person_id, label, int(value), now()],
        )
    return Label(reply_id, person_id, label, bool(value))


def check_label(label: str) -> str:
    """The label itself; BadInputError where it cannot be one."""
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise BadInputError(
            f"label {label!r} must be 1 to 40 of a-z, 0-9, _ and -, and begin with a letter"
        )
    return label


def remove_label(db: Database, reply_id: int, person_id: int, label: str) -> None:
    """Take back what the person said of the reply. Raises NotFoundError: they said nothing."""
    with db.transaction():
        erased = db.row(
            "DELETE FROM labels WHERE reply_id = ? AND person_id = ? AND label = ? RETURNING label",
            [reply_id, person_id, label],
        )
        if erased is None:
            raise NotFoundError(f"you gave reply {reply_id} no label {label!r}")


def labels_of_turn(db: Database, turn_id: int, person_id: int) -> dict[int, dict[str, bool]]:
    """What the person says of the replies of a turn: by reply id, label and whether it is true."""
    found: dict[int, dict[str, bool]] = {}
    for row in db.rows(
        "SELECT labels.* FROM labels JOIN replies ON replies.id = labels.reply_id "
        "WHERE replies.turn_id = ? AND labels.person_id = ? ORDER BY labels.label",
        [turn_id, person_id],
    ):
        found.setdefault(row["reply_id"], {})[row["label"]] = bool(row["value"])
    return found


def labels_of(db: Database, reply_id: int) -> Sequence[Label]:
    """What all persons say of the reply."""
    rows = db.rows("SELECT * FROM labels WHERE reply_id = ? ORDER BY label, person_id", [reply_id])
    return [_label(row) for row in rows]


def labelled_replies(db: Database) -> list[LabelledReply]:
    """All replies that somebody labelled, with their context and all that people say of them.

    Hidden repeats of the queue are left out.
    """
    sql = (
        "SELECT labels.* FROM labels WHERE reply_id NOT IN (SELECT replies.id FROM replies "
        "JOIN turns ON turns.id = replies.turn_id "
        "JOIN conversations ON conversations.id = turns.conversation_id "
        "WHERE conversations.origin = 'repeat') ORDER BY reply_id, label, person_id"
    )
    with db.snapshot():
        rows = db.rows(sql)
        return [
            _labelled_reply(db, reply_id, [_label(row) for row in group])
            for reply_id, group in itertools.groupby(rows, key=lambda row: int(row["reply_id"]))
        ]


def _labelled_reply(db: Database, reply_id: int, labels: Sequence[Label]) -> LabelledReply:
    reply = get_reply(db, reply_id)
    turn = get_turn(db, reply.turn_id)
    context = messages_before(db, turn.conversation_id, turn.parent_reply_id)
    return LabelledReply(
        reply_id=reply_id,
        messages=(*context, Message("user", turn.text)),
        text=reply.text,
        finished=reply.finish_reason == "stop",
        labels=tuple(labels),
    )


def _label(row: dict[str, Any]) -> Label:
    return Label(row["reply_id"], row["person_id"], row["label"], bool(row["value"]))
