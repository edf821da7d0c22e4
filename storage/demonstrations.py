"""Replies that people wrote themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chatrlhf.errors import BadInputError, NotFoundError
from storage.conversations import get_turn, messages_before
from storage.database import Database, Parameters, insert
from storage.records import Demonstration, Message
from storage.values import checked_text, now, to_json

_ROLES = ("system", "user", "assistant")


def save_demonstration(
    db: Database,
    person_id: int,
    text: str,
    *,
    turn_id: int | None = None,
    messages: Sequence[Message] | None = None,
) -> Demonstration:
    """Store a reply to a turn, or to ``messages`` that no turn holds (an import).

    Raises:
        BadInputError: text is refused, or not exactly one of turn and messages came, or the last
            message is not the user's.
        NotFoundError: no such turn or person.
    """
    checked_text(text, "the demonstration")
    if (turn_id is None) == (messages is None):
        raise BadInputError("a demonstration answers either a turn or messages; send one of them")
    if messages is not None:
        check_messages(messages)
    with db.transaction() as connection:
        if turn_id is not None:
            get_turn(db, turn_id)
        if db.row("SELECT 1 FROM people WHERE id = ?", [person_id]) is None:
            raise NotFoundError(f"there is no person {person_id}")
        row = {
            "turn_id": turn_id,
            "person_id": person_id,
            "messages": None if messages is None else to_json([vars(item) for item in messages]),
            "text": text,
            "created_at": now(),
        }
        new_id = insert(connection, "demonstrations", row)
    return get_demonstration(db, new_id)


def check_messages(messages: Sequence[Message]) -> None:
    """BadInputError unless a demonstration can follow the messages."""
    for message in messages:
        if message.role not in _ROLES:
            raise BadInputError(f"role {message.role!r} is none of {', '.join(_ROLES)}")
        checked_text(message.content, f"the {message.role} message")
    if not messages or messages[-1].role != "user":
        raise BadInputError("the last message before a demonstration must be the user's")


def get_demonstration(
    db: Database, demonstration_id: int, person_id: int | None = None
) -> Demonstration:
    """One demonstration; NotFoundError also when it is not of ``person_id``, if given."""
    row = db.row("SELECT * FROM demonstrations WHERE id = ?", [demonstration_id])
    if row is None or person_id not in (None, row["person_id"]):
        raise NotFoundError(f"there is no demonstration {demonstration_id}")
    return _demonstration(db, row)


def rewrite_demonstration(
    db: Database, demonstration_id: int, text: str, person_id: int | None = None
) -> Demonstration:
    """Store another text in place of a demonstration, under a new id, so that it is new to learn.

    Raises:
        BadInputError: the text is refused.
        NotFoundError: no such demonstration, or it is not of ``person_id``, if given.
    """
    checked_text(text, "the demonstration")
    with db.transaction() as connection:
        get_demonstration(db, demonstration_id, person_id)
        row = db.rows("SELECT * FROM demonstrations WHERE id = ?", [demonstration_id])[0]
        del row["id"]
        new_id = insert(connection, "demonstrations", {**row, "text": text, "created_at": now()})
        connection.execute("DELETE FROM demonstrations WHERE id = ?", [demonstration_id])
    db.forget_erased()
    return get_demonstration(db, new_id)


def list_demonstrations(
    db: Database, after_id: int = 0, *, turn_id: int | None = None
) -> list[Demonstration]:
    """Demonstrations with an id above ``after_id``, oldest first."""
    where = "id > :after AND (:turn IS NULL OR turn_id = :turn)"
    return demonstrations_where(db, where, {"after": after_id, "turn": turn_id})


def demonstrations_where(db: Database, where: str, parameters: Parameters) -> list[Demonstration]:
    """Demonstrations of a condition that the code wrote, oldest first."""
    with db.snapshot():
        rows = db.rows(f"SELECT * FROM demonstrations WHERE {where} ORDER BY id", parameters)
        return [_demonstration(db, row) for row in rows]


def _demonstration(db: Database, row: dict[str, Any]) -> Demonstration:
    if row["turn_id"] is None:
        row["messages"] = tuple(Message(**message) for message in json.loads(row["messages"]))
    else:
        turn = get_turn(db, row["turn_id"])
        context = messages_before(db, turn.conversation_id, turn.parent_reply_id)
        row["messages"] = (*context, Message("user", turn.text))
    return Demonstration(**row)


def delete_demonstration(db: Database, demonstration_id: int, person_id: int | None = None) -> None:
    """Erase it; NotFoundError also when it is not of ``person_id``, if given."""
    with db.transaction():
        erased = db.row(
            "DELETE FROM demonstrations WHERE id = ? AND (? IS NULL OR person_id = ?) RETURNING id",
            [demonstration_id, person_id, person_id],
        )
        if erased is None:
            raise NotFoundError(f"there is no demonstration {demonstration_id}")
    db.forget_erased()


def count_new(db: Database, after_id: int) -> int:
    """How many demonstrations have a greater id."""
    sql = "SELECT count(*) AS n FROM demonstrations WHERE id > ?"
    return int(db.rows(sql, [after_id])[0]["n"])


def newest_id(db: Database) -> int:
    """The id of the newest demonstration, or 0."""
    return int(db.rows("SELECT coalesce(max(id), 0) AS newest FROM demonstrations")[0]["newest"])
