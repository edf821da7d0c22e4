"""Conversations, their turns and the replies of each turn."""

from __future__ import annotations

from collections.abc import Sequence

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.choices import choices_of, finish_choice, insert_choice
from storage.database import Database, Parameters, insert
from storage.erasure import mark_versions_of_turns
from storage.records import Choice, Conversation, Message, NewReply, Reply, Turn
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
    "add_replies",
    "create_conversation",
    "create_turn",
    "damaged_replies",
    "delete_conversation",
    "delete_turn",
    "finish_choice",
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
    "set_system_prompt",
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


def create_conversation(
    db: Database, person_id: int, system_prompt: str = "", title: str = "", origin: str = ""
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
        if origin:
            row["origin"] = origin
        new_id = insert(connection, "conversations", row)
    return get_conversation(db, new_id)


def list_conversations(db: Database, person_id: int) -> list[Conversation]:
    """The person's chats, newest first; without imported data sets and the queue's items."""
    sql = "SELECT * FROM conversations WHERE person_id = ? AND origin = '' ORDER BY id DESC"
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


def set_system_prompt(
    db: Database, conversation_id: int, system_prompt: str, person_id: int | None = None
) -> Conversation:
    """Give a conversation without turns another system prompt.

    Raises:
        ConflictError: it has turns, whose replies and ratings belong to the old one.
    """
    checked_text(system_prompt, "the system prompt", may_be_blank=True)
    with db.transaction() as connection:
        get_conversation(db, conversation_id, person_id)
        if db.row("SELECT 1 FROM turns WHERE conversation_id = ?", [conversation_id]):
            raise ConflictError(
                f"conversation {conversation_id} has begun, and its ratings belong to its system "
                "prompt; start another conversation with the new one"
            )
        connection.execute(
            "UPDATE conversations SET system_prompt = ? WHERE id = ?",
            [system_prompt, conversation_id],
        )
    return get_conversation(db, conversation_id)


def delete_conversation(db: Database, conversation_id: int, person_id: int | None = None) -> None:
    """Erase the conversation with all its turns, replies, rankings and demonstrations."""
    with db.transaction() as connection:
        get_conversation(db, conversation_id, person_id)
        mark_versions_of_turns(connection, "conversation_id = ?", conversation_id)
        connection.execute("DELETE FROM conversations WHERE id = ?", [conversation_id])
    db.forget_erased()


def delete_turn(db: Database, turn_id: int, person_id: int | None = None) -> None:
    """Erase the turn with its replies and ratings, and the turns continued from them."""
    with db.transaction() as connection:
        get_turn(db, turn_id, person_id)
        mark_versions_of_turns(connection, "id = ?", turn_id)
        connection.execute("DELETE FROM turns WHERE id = ?", [turn_id])
    db.forget_erased()


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
    choice: Choice | None = None,
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
        if choice is not None:
            insert_choice(connection, turn_id, choice)
    return get_turn(db, turn_id)


def add_replies(db: Database, turn_id: int, rows: Sequence[NewReply]) -> Turn:
    """Give a turn more replies, which are ``streaming``, at the positions after those it has."""
    created_at = now()
    with db.transaction() as connection:
        have = len(get_turn(db, turn_id).replies)
        if [row.position for row in rows] != list(range(have, have + len(rows))):
            raise BadInputError(f"turn {turn_id} has {have} replies; more come after them")
        for row in rows:
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
    """One turn with its replies.

    NotFoundError also when ``person_id`` is given, but it is neither of a conversation of theirs
    nor was given to them by the queue.
    """
    turns = _turns(
        db,
        "turns.id = :turn AND (:person IS NULL OR EXISTS (SELECT 1 FROM conversations "
        "WHERE conversations.id = turns.conversation_id AND conversations.person_id = :person) "
        "OR EXISTS (SELECT 1 FROM queue_assignments AS given "
        "WHERE given.turn_id = turns.id AND given.person_id = :person))",
        {"turn": turn_id, "person": person_id},
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
        choices = choices_of(db, where, parameters)
    return tuple(
        Turn(**row, replies=tuple(replies.get(row["id"], ())), choice=choices.get(row["id"]))
        for row in turns
    )
