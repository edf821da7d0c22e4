"""Conversations as whole records: all rows that belong to one, for export and `storage.restore`.

Ids hold within a record only: turns and rankings refer to replies by them. People go by name.
Not in a record: hashes (made again from what they cover) and the pool of prompts. Of the rating
queue there is what somebody rated, as conversations of the origin ``queue``; hidden repeats, which
teach nothing new, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from storage.choices import choices_of
from storage.database import Database, Parameters
from storage.records import Choice, FinishReason, Message, ReplyState
from storage.values import unpack_floats, unpack_integers


@dataclass(frozen=True)
class ArchivedLabel:
    """What one person says of the reply."""

    label: str
    value: bool
    person: str
    created_at: str


@dataclass(frozen=True)
class ArchivedReply:
    """A reply with all that is needed to make it again.

    ``logprobs`` that are not finite are "nan", "inf" or "-inf", since JSON has no such numbers.
    """

    id: int
    position: int
    text: str
    version: str
    seed: int
    sampling: dict[str, Any]
    state: ReplyState
    finish_reason: FinishReason | None
    slot_type: str
    created_at: str
    candidate: int | None = None
    score: float | None = None
    propensity: float | None = None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float | Literal["nan", "inf", "-inf"], ...] = ()
    labels: tuple[ArchivedLabel, ...] = ()


@dataclass(frozen=True)
class ArchivedRank:
    """The place of one reply; 1 is best."""

    reply_id: int
    rank: int


@dataclass(frozen=True)
class ArchivedRanking:
    """An order of the turn's replies, of any state."""

    id: int
    person: str
    ranks: tuple[ArchivedRank, ...]
    created_at: str
    strength: int | None = None
    comment: str = ""
    all_bad: bool = False
    state: Literal["active", "superseded", "withdrawn"] = "active"
    revision_of: int | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True)
class ArchivedAnswer:
    """A demonstration that answers the turn."""

    person: str
    text: str
    created_at: str


@dataclass(frozen=True)
class ArchivedTurn:
    """A prompt, its replies in shown order, and what people made of them."""

    id: int
    parent_reply_id: int | None
    text: str
    created_at: str
    choice: Choice | None = None
    replies: tuple[ArchivedReply, ...] = ()
    rankings: tuple[ArchivedRanking, ...] = ()
    demonstrations: tuple[ArchivedAnswer, ...] = ()


@dataclass(frozen=True)
class ArchivedConversation:
    """A conversation with all its turns, parents before children."""

    id: int
    person: str
    title: str
    system_prompt: str
    created_at: str
    origin: str = ""
    origin_key: str | None = None
    turns: tuple[ArchivedTurn, ...] = field(default=())


@dataclass(frozen=True)
class ArchivedDemonstration:
    """A demonstration that belongs to no turn."""

    id: int
    person: str
    messages: tuple[Message, ...]
    text: str
    created_at: str


Archived = ArchivedConversation | ArchivedDemonstration


def archive(db: Database, person_id: int | None = None) -> Iterator[Archived]:
    """All conversations, then the demonstrations of no turn, oldest first.

    With ``person_id``, only that person's conversations and ratings; what they rated in the queue
    is then theirs. Each record is of one moment; later ones may be newer. Turns whose replies
    still stream are left out.
    """
    for conversation_id in _ids(db, "conversations", _CONVERSATIONS, person_id):
        with db.snapshot():
            found = _conversation(db, conversation_id, person_id)
        if found is not None:
            yield found
    for demonstration_id in _ids(db, "demonstrations", _WRITTEN, person_id):
        row = db.row(
            "SELECT demonstrations.*, people.name AS person FROM demonstrations "
            "JOIN people ON people.id = person_id WHERE demonstrations.id = ? AND turn_id IS NULL",
            [demonstration_id],
        )
        if row is not None:
            messages = tuple(Message(**message) for message in json.loads(row["messages"]))
            yield ArchivedDemonstration(
                row["id"], row["person"], messages, row["text"], row["created_at"]
            )


def archive_size(db: Database, person_id: int | None = None) -> int:
    """How many records `archive` is about to give."""
    kinds = (("conversations", _CONVERSATIONS), ("demonstrations", _WRITTEN))
    return sum(len(_ids(db, table, where, person_id)) for table, where in kinds)


_WRITTEN = "turn_id IS NULL AND (:person IS NULL OR person_id = :person)"
# Of the queue, what somebody (or this person) rated: the rest can be made again.
_CONVERSATIONS = """
    (origin NOT IN ('queue', 'repeat') AND (:person IS NULL OR person_id = :person))
    OR (origin = 'queue' AND id IN (
        SELECT turns.conversation_id FROM turns WHERE turns.id IN (
            SELECT turn_id FROM rankings WHERE :person IS NULL OR person_id = :person
            UNION
            SELECT turn_id FROM demonstrations WHERE :person IS NULL OR person_id = :person
            UNION
            SELECT replies.turn_id FROM labels JOIN replies ON replies.id = labels.reply_id
            WHERE :person IS NULL OR labels.person_id = :person)))
"""


def _ids(db: Database, table: str, where: str, person_id: int | None) -> list[int]:
    sql = f"SELECT id FROM {table} WHERE {where} ORDER BY id"
    return [int(row["id"]) for row in db.rows(sql, {"person": person_id})]


def _conversation(
    db: Database, conversation_id: int, person_id: int | None
) -> ArchivedConversation | None:
    row = db.row(
        "SELECT conversations.*, people.name AS person FROM conversations "
        "JOIN people ON people.id = iif(origin = 'queue', coalesce(:person, person_id), person_id) "
        "WHERE conversations.id = :conversation",
        {"conversation": conversation_id, "person": person_id},
    )
    if row is None:  # erased in the meantime
        return None
    del row["person_id"]
    return ArchivedConversation(**row, turns=_turns(db, conversation_id, person_id))


def _turns(db: Database, conversation_id: int, person_id: int | None) -> tuple[ArchivedTurn, ...]:
    rows = db.rows("SELECT * FROM turns WHERE conversation_id = ? ORDER BY id", [conversation_id])
    choices = choices_of(db, "turns.conversation_id = ?", [conversation_id])
    parts = _Parts(db, conversation_id, person_id)
    turns = []
    for row in rows:
        replies = parts.replies.get(row["id"], ())
        if any(reply.state == "streaming" for reply in replies):
            continue
        turns.append(
            ArchivedTurn(
                row["id"],
                row["parent_reply_id"],
                row["text"],
                row["created_at"],
                choices.get(row["id"]),
                tuple(replies),
                tuple(parts.rankings.get(row["id"], ())),
                tuple(parts.answers.get(row["id"], ())),
            )
        )
    return tuple(turns)


class _Parts:
    """Replies, rankings and demonstrations of a conversation by turn id."""

    def __init__(self, db: Database, conversation_id: int, person_id: int | None) -> None:
        self._db = db
        self._parameters: Parameters = {"conversation": conversation_id, "person": person_id}
        labels: dict[int, list[ArchivedLabel]] = {}
        for row in self._of_people("labels", "JOIN replies ON replies.id = reply_id"):
            label = ArchivedLabel(
                row["label"], bool(row["value"]), row["person"], row["created_at"]
            )
            labels.setdefault(row["reply_id"], []).append(label)
        self.replies: dict[int, list[ArchivedReply]] = {}
        for row in self._rows("SELECT replies.* FROM replies", "replies.turn_id, position"):
            reply = _reply(row, tuple(labels.get(row["id"], ())))
            self.replies.setdefault(row["turn_id"], []).append(reply)
        self.rankings: dict[int, list[ArchivedRanking]] = {}
        for row in self._of_people("rankings"):
            self.rankings.setdefault(row["turn_id"], []).append(self._ranking(row))
        self.answers: dict[int, list[ArchivedAnswer]] = {}
        for row in self._of_people("demonstrations"):
            answer = ArchivedAnswer(row["person"], row["text"], row["created_at"])
            self.answers.setdefault(row["turn_id"], []).append(answer)

    def _rows(self, select: str, order: str, where: str = "1") -> list[dict[str, Any]]:
        sql = (
            f"{select} JOIN turns ON turns.id = turn_id "
            f"WHERE turns.conversation_id = :conversation AND {where} ORDER BY {order}"
        )
        return self._db.rows(sql, self._parameters)

    def _of_people(self, table: str, join: str = "") -> list[dict[str, Any]]:
        """Rows of a table of ratings, with the rater's name."""
        select = (
            f"SELECT {table}.*, people.name AS person FROM {table} {join} "
            f"JOIN people ON people.id = {table}.person_id"
        )
        mine = f"(:person IS NULL OR {table}.person_id = :person)"
        order = "reply_id, label, people.id" if table == "labels" else f"{table}.id"
        return self._rows(select, order, mine)

    def _ranking(self, row: dict[str, Any]) -> ArchivedRanking:
        entries = self._db.rows(
            "SELECT reply_id, rank FROM ranking_entries WHERE ranking_id = ? ORDER BY reply_id",
            [row["id"]],
        )
        for name in ("turn_id", "person_id", "body_sha256"):
            del row[name]
        row["all_bad"] = bool(row["all_bad"])
        return ArchivedRanking(**row, ranks=tuple(ArchivedRank(**entry) for entry in entries))


def _reply(row: dict[str, Any], labels: tuple[ArchivedLabel, ...]) -> ArchivedReply:
    logprobs = unpack_floats(row["logprobs"])
    row = {name: value for name, value in row.items() if name not in ("turn_id", "text_sha256")}
    row["token_ids"] = unpack_integers(row["token_ids"])
    row["logprobs"] = tuple(_in_json(number) for number in logprobs)
    row["sampling"] = json.loads(row["sampling"])
    return ArchivedReply(**row, labels=labels)


def _in_json(number: float) -> float | Literal["nan", "inf", "-inf"]:
    if number != number:
        return "nan"
    if number in (float("inf"), float("-inf")):
        return "inf" if number > 0 else "-inf"
    return number
