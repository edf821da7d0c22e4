"""Conversations, their turns and the replies of each turn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import sqlite_utils

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.database import Database, Parameters, insert
from storage.records import Conversation, Message, NewReply, Reply, Turn
from storage.replies import (
    RANKABLE,
    damaged_replies,
    finish_reply,
    get_reply,
    insert_reply,
    interrupt_streaming,
    reply_from,
    set_reply_versions,
)
from storage.values import checked_text, now

__all__ = [
    "NewReply",
    "choose_parent",
    "create_conversation",
    "create_turn",
    "damaged_replies",
    "delete_conversation",
    "delete_turn",
    "finish_reply",
    "get_conversation",
    "get_reply",
    "get_turn",
    "interrupt_streaming",
    "list_conversations",
    "list_turns",
    "messages_before",
    "rename_conversation",
    "set_reply_versions",
]

MAX_REPLIES = 64
# A path of replies from the given one up to the first turn of its conversation.
_PATH = """
    WITH RECURSIVE path (turn_id, reply_id, depth) AS (
        SELECT turn_id, id, 0 FROM replies WHERE id = ?
        UNION ALL
        SELECT parent.turn_id, parent.id, path.depth + 1
        FROM path
        JOIN turns ON turns.id = path.turn_id
        JOIN replies AS parent ON parent.id = turns.parent_reply_id
    )
    SELECT turns.conversation_id, turns.text AS prompt, replies.text AS reply
    FROM path
    JOIN turns ON turns.id = path.turn_id
    JOIN replies ON replies.id = path.reply_id
    ORDER BY path.depth DESC
"""
# The turns that go when the named ones go: all that were continued from their replies.
_DESCENDANTS = """
    WITH RECURSIVE gone (id) AS (
        SELECT id FROM turns WHERE {where}
        UNION
        SELECT turns.id FROM gone
        JOIN replies ON replies.turn_id = gone.id
        JOIN turns ON turns.parent_reply_id = replies.id
    )
"""


def create_conversation(
    db: Database, person_id: int, system_prompt: str = "", title: str = ""
) -> Conversation:
    """Start an empty conversation. Raises NotFoundError (person) or BadInputError (text)."""
    checked_text(system_prompt, "the system prompt", may_be_blank=True)
    checked_text(title, "the title", may_be_blank=True, limit=1000)
    with db.transaction() as connection:
        if db.row("SELECT 1 FROM people WHERE id = ?", [person_id]) is None:
            raise NotFoundError(f"there is no person {person_id}")
        row = {
            "person_id": person_id,
            "title": title,
            "system_prompt": system_prompt,
            "created_at": now(),
        }
        new_id = insert(connection, "conversations", row)
    return get_conversation(db, new_id)


def list_conversations(db: Database, person_id: int) -> list[Conversation]:
    """The person's conversations, newest first."""
    sql = "SELECT * FROM conversations WHERE person_id = ? ORDER BY id DESC"
    return [Conversation(**row) for row in db.rows(sql, [person_id])]


def get_conversation(
    db: Database, conversation_id: int, person_id: int | None = None
) -> Conversation:
    """One conversation; NotFoundError also when it is not of ``person_id``, if given."""
    row = db.row("SELECT * FROM conversations WHERE id = ?", [conversation_id])
    if row is None or person_id not in (None, row["person_id"]):
        raise NotFoundError(f"there is no conversation {conversation_id}")
    return Conversation(**row)


def rename_conversation(
    db: Database, conversation_id: int, title: str, person_id: int | None = None
) -> Conversation:
    """Give the conversation another title."""
    checked_text(title, "the title", may_be_blank=True, limit=1000)
    with db.transaction() as connection:
        get_conversation(db, conversation_id, person_id)
        connection.execute(
            "UPDATE conversations SET title = ? WHERE id = ?", [title, conversation_id]
        )
    return get_conversation(db, conversation_id)


def delete_conversation(db: Database, conversation_id: int, person_id: int | None = None) -> None:
    """Erase the conversation with all its turns, replies, rankings and demonstrations."""
    with db.transaction() as connection:
        get_conversation(db, conversation_id, person_id)
        _mark_versions(connection, "conversation_id = ?", conversation_id)
        connection.execute("DELETE FROM conversations WHERE id = ?", [conversation_id])
    db.forget_erased()


def delete_turn(db: Database, turn_id: int, person_id: int | None = None) -> None:
    """Erase the turn with its replies and ratings, and the turns continued from them."""
    with db.transaction() as connection:
        get_turn(db, turn_id, person_id)
        _mark_versions(connection, "id = ?", turn_id)
        connection.execute("DELETE FROM turns WHERE id = ?", [turn_id])
    db.forget_erased()


def _mark_versions(connection: sqlite_utils.Database, where: str, identity: int) -> None:
    """Count the rankings about to go into the versions that were trained on them."""
    connection.execute(
        _DESCENDANTS.format(where=where)
        + """
        UPDATE versions SET erased_rankings = erased_rankings + (
            SELECT count(*) FROM rankings
            WHERE rankings.turn_id IN (SELECT id FROM gone) AND rankings.state = 'active'
            AND rankings.id <= (SELECT last_ranking_id FROM runs WHERE runs.id = versions.run_id))
        WHERE run_id IS NOT NULL
        """,
        [identity],
    )


def messages_before(
    db: Database, conversation_id: int, parent_reply_id: int | None
) -> tuple[Message, ...]:
    """System prompt, if any, then user and assistant messages up to and with the parent reply."""
    conversation = get_conversation(db, conversation_id)
    messages: list[Message] = []
    if conversation.system_prompt.strip():
        messages.append(Message("system", conversation.system_prompt))
    if parent_reply_id is None:
        return tuple(messages)
    path = db.rows(_PATH, [parent_reply_id])  # empty too when the conversation has just gone
    if not path or path[0]["conversation_id"] != conversation_id:
        raise NotFoundError(
            f"there is no reply {parent_reply_id} in conversation {conversation_id}"
        )
    for row in path:
        messages += [Message("user", row["prompt"]), Message("assistant", row["reply"])]
    return tuple(messages)


def create_turn(
    db: Database,
    conversation_id: int,
    text: str,
    parent_reply_id: int | None,
    rows: Sequence[NewReply],
) -> Turn:
    """Store a prompt and its replies, which are ``streaming`` until `finish_reply`.

    Raises:
        BadInputError: the text is refused, or positions are not 0 .. K-1.
        NotFoundError: no such conversation, or the parent is not a reply of it.
        ConflictError: the parent reply was not finished.
    """
    checked_text(text, "the message")
    if sorted(row.position for row in rows) != list(range(len(rows))) or not rows:
        raise BadInputError("a turn needs replies at positions 0 to K-1, each once")
    if len(rows) > MAX_REPLIES:
        raise BadInputError(f"a turn can have {MAX_REPLIES} replies, not {len(rows)}")
    created_at = now()
    with db.transaction() as connection:
        get_conversation(db, conversation_id)
        if parent_reply_id is not None:
            _check_parent(db, conversation_id, parent_reply_id)
        turn = {
            "conversation_id": conversation_id,
            "parent_reply_id": parent_reply_id,
            "text": text,
            "created_at": created_at,
        }
        turn_id = insert(connection, "turns", turn)
        for row in sorted(rows, key=lambda row: row.position):
            insert_reply(connection, turn_id, row, created_at)
    return get_turn(db, turn_id)


def _check_parent(db: Database, conversation_id: int, parent_reply_id: int) -> None:
    parent = db.row(
        "SELECT replies.state FROM replies JOIN turns ON turns.id = replies.turn_id "
        "WHERE replies.id = ? AND turns.conversation_id = ?",
        [parent_reply_id, conversation_id],
    )
    if parent is None:
        raise NotFoundError(
            f"there is no reply {parent_reply_id} in conversation {conversation_id}"
        )
    if parent["state"] not in RANKABLE:
        raise ConflictError(
            f"reply {parent_reply_id} is {parent['state']}; continue from a finished reply"
        )


def get_turn(db: Database, turn_id: int, person_id: int | None = None) -> Turn:
    """One turn with its replies; NotFoundError also when it is not of ``person_id``, if given."""
    turns = _turns(
        db,
        "turns.id = ? AND (? IS NULL OR turns.conversation_id IN "
        "(SELECT id FROM conversations WHERE person_id = ?))",
        [turn_id, person_id, person_id],
    )
    if not turns:
        raise NotFoundError(f"there is no turn {turn_id}")
    return turns[0]


def list_turns(db: Database, conversation_id: int) -> tuple[Turn, ...]:
    """All turns of the conversation, of all branches, oldest first."""
    return _turns(db, "turns.conversation_id = ?", [conversation_id])


def _turns(db: Database, where: str, parameters: Parameters) -> tuple[Turn, ...]:
    replies: dict[int, list[Reply]] = {}
    with db.snapshot():
        turns = db.rows(f"SELECT * FROM turns WHERE {where} ORDER BY id", parameters)
        for row in db.rows(
            "SELECT replies.* FROM replies JOIN turns ON turns.id = replies.turn_id "
            f"WHERE {where} ORDER BY replies.turn_id, replies.position",
            parameters,
        ):
            replies.setdefault(row["turn_id"], []).append(reply_from(row))
    return tuple(Turn(**row, replies=tuple(replies.get(row["id"], ()))) for row in turns)


def choose_parent(db: Database, conversation_id: int) -> int | None:
    """The reply that the next turn continues from; None for the first turn.

    Of the newest turn with finished replies: the best of its active ranking (the owner's before
    another person's), else one of the complete ones, drawn by a hash of the turn's id, which is
    the same each time.

    Raises:
        ConflictError: replies of the newest turn still stream.
    """
    with db.snapshot():
        return _chosen_parent(db, conversation_id)


def _chosen_parent(db: Database, conversation_id: int) -> int | None:
    owner = get_conversation(db, conversation_id).person_id
    turns = list_turns(db, conversation_id)
    if turns and any(reply.state == "streaming" for reply in turns[-1].replies):
        raise ConflictError(
            f"replies of turn {turns[-1].id} still stream; wait for them or cut them"
        )
    for turn in reversed(turns):
        finished = [reply.id for reply in turn.replies if reply.state in RANKABLE]
        if finished:
            best = db.rows(
                "SELECT reply_id FROM ranking_entries WHERE rank = 1 AND ranking_id = ("
                "SELECT id FROM rankings WHERE turn_id = ? AND state = 'active' "
                "ORDER BY person_id = ? DESC, id DESC LIMIT 1) ORDER BY reply_id",
                [turn.id, owner],
            )
            complete = [reply.id for reply in turn.replies if reply.state == "complete"]
            return _drawn(turn.id, [row["reply_id"] for row in best] or complete or finished)
    return None


def _drawn(turn_id: int, candidates: Sequence[int]) -> int:
    digest = hashlib.sha256(f"parent of turn {turn_id}".encode()).digest()
    return candidates[int.from_bytes(digest[:8], "big") % len(candidates)]
