"""Whole records back into rows: each once, however often it is imported.

A record of `storage.archive` says when each row was made; with what the row holds, that tells
whether it is here already. So importing a file again adds nothing, and importing a later export of
the same chats adds what is new. Records of other programs' data sets have an ``origin_key``
instead, a hash of their content, and are recognised by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatrlhf.errors import BadInputError
from storage.archive import ArchivedConversation, ArchivedDemonstration
from storage.database import Database, insert
from storage.demonstrations import check_messages
from storage.restore_turns import TurnsRestorer
from storage.restore_values import Added, PersonId, Wrote, checked_moment, unlogged
from storage.values import checked_text, sha256_of, to_json

__all__ = ["Added", "Restorer"]


class Restorer:
    """Writes records in the caller's transaction; one object for a whole import.

    ``person_id`` gives the person of a name, made where that is allowed, or raises BadInputError;
    ``wrote`` hears of the rows that were new, so that the import can be undone.
    """

    def __init__(self, db: Database, person_id: PersonId, wrote: Wrote = unlogged) -> None:
        self._db = db
        self._person_id = person_id
        self._wrote = wrote
        # By id here, the record it came from: two like records are two conversations.
        self._matched: dict[int, int] = {}
        self._written: set[str] | None = None

    def conversation(self, record: ArchivedConversation) -> Added:
        """Write what is new of a conversation.

        Raises:
            BadInputError: a value is refused; says which.
            ConflictError: the rows contradict each other.
        """
        owner = self._person_id(record.person)
        known = self._find(record, owner)
        conversation_id = self._insert_conversation(record, owner) if known is None else known
        if known is None:
            self._wrote("conversation", conversation_id)
        self._matched[conversation_id] = record.id
        writer = TurnsRestorer(
            self._db,
            self._person_id,
            conversation_id,
            self._wrote,
            is_new=known is None,
            by_content=record.origin_key is not None,
        )
        for number, turn in enumerate(record.turns, start=1):
            try:
                writer.turn(turn)
            except BadInputError as error:
                raise BadInputError(f"turn {number}: {error}") from error
        return writer.added + Added(conversations=known is None)

    def demonstration(self, record: ArchivedDemonstration, *, by_content: bool = False) -> Added:
        """Write a demonstration of no turn; ``by_content``: whenever it was written."""
        checked_text(record.text, "the demonstration")
        check_messages(record.messages)
        row = {
            "turn_id": None,
            "person_id": self._person_id(record.person),
            "messages": to_json([vars(message) for message in record.messages]),
            "text": record.text,
            "created_at": checked_moment(record.created_at),
        }
        keys = [_demonstration_key(row), _demonstration_key({**row, "created_at": ""})]
        if self._written is None:
            self._written = _demonstration_keys(self._db)
        if keys[by_content] in self._written:
            return Added()
        new_id = insert(self._db.connection(), "demonstrations", row)
        self._wrote("demonstration", new_id)
        self._written.update(keys)
        return Added(demonstrations=1)

    def _find(self, record: ArchivedConversation, owner: int) -> int | None:
        """The conversation here that the record is of."""
        if record.origin_key is not None:
            where, values = "origin_key = ?", [record.origin_key]
        else:
            where = "origin_key IS NULL AND created_at = ? AND system_prompt = ?"
            values = [record.created_at, record.system_prompt]
        sql = f"SELECT id FROM conversations WHERE {where} AND person_id = ? ORDER BY id"
        for row in self._db.rows(sql, [*values, owner]):
            if self._matched.get(row["id"], record.id) == record.id and self._same_start(
                row["id"], record
            ):
                return int(row["id"])
        return None

    def _same_start(self, conversation_id: int, record: ArchivedConversation) -> bool:
        """Whether the first turns do not tell the two apart."""
        first = self._db.row(
            "SELECT text, created_at FROM turns WHERE conversation_id = ? ORDER BY id LIMIT 1",
            [conversation_id],
        )
        if first is None or not record.turns or record.origin_key is not None:
            return True
        mine = record.turns[0]
        return bool(first["text"] == mine.text and first["created_at"] == mine.created_at)

    def _insert_conversation(self, record: ArchivedConversation, owner: int) -> int:
        checked_text(record.title, "the title", may_be_blank=True, limit=1000)
        checked_text(record.system_prompt, "the system prompt", may_be_blank=True)
        checked_text(record.origin, "the origin", may_be_blank=True, limit=100)
        if record.origin_key is not None:
            checked_text(record.origin_key, "the origin's key", limit=100)
        row = {
            "person_id": owner,
            "title": record.title,
            "system_prompt": record.system_prompt,
            "created_at": checked_moment(record.created_at),
            "origin": record.origin,
            "origin_key": record.origin_key,
        }
        return insert(self._db.connection(), "conversations", row)


def _demonstration_keys(db: Database) -> set[str]:
    """Keys of all demonstrations of no turn: with their time, and without."""
    sql = "SELECT person_id, messages, text, created_at FROM demonstrations WHERE turn_id IS NULL"
    rows = db.rows(sql)
    timeless = [{**row, "created_at": ""} for row in rows]
    return {_demonstration_key(row) for row in (*rows, *timeless)}


def _demonstration_key(row: Mapping[str, Any]) -> str:
    names = ("person_id", "messages", "text", "created_at")
    return sha256_of(to_json([row[name] for name in names]))
