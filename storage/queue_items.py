"""Items of the rating queue: turns with replies made ahead for the prompts of the pool.

Each is in a conversation of its own, of the origin ``queue``, and several people may rate it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from chatrlhf.errors import ConflictError, NotFoundError
from storage.conversations import create_conversation
from storage.database import Database
from storage.prompts import PROMPT_COLUMNS, prompt_from
from storage.records import Conversation, Prompt
from storage.values import now

ORIGIN = "queue"

# Conditions on a prompt (for a ``:person``) and on a row of queue_items.
# By text: a prompt that the person asked and rated in the chat is rated as well.
NEW_TO_PERSON = """prompts.deleted_at IS NULL AND prompts.text NOT IN (
    SELECT turns.text FROM rankings JOIN turns ON turns.id = rankings.turn_id
    WHERE rankings.person_id = :person AND rankings.state = 'active')"""
CAN_BE_RATED = """((SELECT count(*) FROM replies WHERE replies.turn_id = queue_items.turn_id
    AND replies.state <> 'interrupted') > 1)"""


def new_item_conversation(db: Database, prompt: Prompt) -> Conversation:
    """An empty conversation for the replies to a prompt; it is filed under an admin."""
    keeper = db.row("SELECT id FROM people ORDER BY role = 'admin' DESC, id LIMIT 1")
    if keeper is None:
        raise NotFoundError("there is nobody who could own the queue; add a person first")
    return create_conversation(db, keeper["id"], prompt.system_prompt, origin=ORIGIN)


def add_item(db: Database, turn_id: int, prompt_id: int) -> None:
    """Make a turn the item of a prompt; ConflictError when it has one, or changed meanwhile."""
    with db.transaction() as connection:
        same = db.row(
            "SELECT 1 FROM prompts JOIN turns ON turns.text = prompts.text "
            "WHERE prompts.id = ? AND turns.id = ?",
            [prompt_id, turn_id],
        )
        if same is None:
            raise ConflictError(f"prompt {prompt_id} has been changed; its replies are of no use")
        connection.execute(
            "INSERT INTO queue_items (turn_id, prompt_id) VALUES (?, ?)", [turn_id, prompt_id]
        )


def withdraw_unshown(db: Database, turn_id: int) -> bool:
    """Hand an item out no more; False when somebody has been given it."""
    with db.transaction() as connection:
        if db.row("SELECT 1 FROM queue_assignments WHERE turn_id = ?", [turn_id]):
            return False
        connection.execute("DELETE FROM queue_items WHERE turn_id = ?", [turn_id])
        return True


def drop_stale(db: Database, live: str) -> int:
    """Erase what will not be handed out; returns how many items that were.

    That is: items nobody has been given that another version than ``live`` wrote; those with too
    few finished replies, or of a prompt that is gone, that nobody has rated; and conversations
    without an item, as a server that was killed leaves.
    """
    sql = f"""
        DELETE FROM conversations WHERE origin = 'queue' AND id NOT IN (
            SELECT turns.conversation_id FROM turns
            LEFT JOIN queue_items ON queue_items.turn_id = turns.id
            LEFT JOIN prompts ON prompts.id = queue_items.prompt_id
            WHERE EXISTS (SELECT 1 FROM rankings WHERE rankings.turn_id = turns.id)
            OR EXISTS (SELECT 1 FROM demonstrations WHERE demonstrations.turn_id = turns.id)
            OR EXISTS (SELECT 1 FROM labels JOIN replies ON replies.id = labels.reply_id
                WHERE replies.turn_id = turns.id)
            OR (prompts.deleted_at IS NULL AND prompts.id IS NOT NULL AND {CAN_BE_RATED}
                AND (EXISTS (SELECT 1 FROM queue_assignments AS shown
                        WHERE shown.turn_id = turns.id)
                    OR NOT EXISTS (SELECT 1 FROM replies
                        WHERE replies.turn_id = turns.id AND replies.version <> :live))))
    """
    with db.transaction() as connection:
        return int(connection.execute(sql, {"live": live}).rowcount)


def rating_counts(db: Database) -> dict[int, int]:
    """By id of the prompts that have replies: how many people rated them."""
    rows = db.rows(
        "SELECT queue_items.prompt_id, count(rankings.id) AS n FROM queue_items "
        "LEFT JOIN rankings ON rankings.turn_id = queue_items.turn_id "
        "AND rankings.state = 'active' "
        "WHERE queue_items.prompt_id IS NOT NULL GROUP BY queue_items.prompt_id"
    )
    return {int(row["prompt_id"]): int(row["n"]) for row in rows}


def raters_since(db: Database, moment: datetime.datetime) -> list[int]:
    """The people who were given an item since then."""
    rows = db.rows(
        "SELECT DISTINCT person_id FROM queue_assignments WHERE leased_at >= ? ORDER BY person_id",
        [now(moment)],
    )
    return [int(row["person_id"]) for row in rows]


def ready_and_missing(db: Database, people: Sequence[int]) -> tuple[int, list[Prompt]]:
    """For these people: how many items wait that nobody was given, and prompts that have none."""
    done = {person_id: _ranked_texts(db, person_id) for person_id in people}
    rows = db.rows(
        f"SELECT {PROMPT_COLUMNS}, queue_items.turn_id AS turn_id, EXISTS (SELECT 1 FROM "
        "queue_assignments WHERE queue_assignments.turn_id = queue_items.turn_id) AS is_shown "
        "FROM prompts LEFT JOIN queue_items ON queue_items.prompt_id = prompts.id "
        "WHERE prompts.deleted_at IS NULL ORDER BY prompts.id"
    )
    ready, missing = 0, []
    for row in rows:
        turn_id, is_shown = row.pop("turn_id"), row.pop("is_shown")
        if is_shown or all(row["text"] in texts for texts in done.values()):
            continue
        if turn_id is None:
            missing.append(prompt_from(row))
        else:
            ready += 1
    return ready, missing


def _ranked_texts(db: Database, person_id: int) -> set[str]:
    rows = db.rows(
        "SELECT DISTINCT turns.text FROM rankings JOIN turns ON turns.id = rankings.turn_id "
        "WHERE rankings.person_id = ? AND rankings.state = 'active'",
        [person_id],
    )
    return {row["text"] for row in rows}


def prompts_to_make(db: Database, person_id: int, limit: int = 20) -> list[Prompt]:
    """The oldest prompts that are new to the person and have no item yet."""
    rows = db.rows(
        f"SELECT {PROMPT_COLUMNS} FROM prompts WHERE {NEW_TO_PERSON} AND NOT EXISTS "
        "(SELECT 1 FROM queue_items WHERE queue_items.prompt_id = prompts.id) "
        "ORDER BY prompts.id LIMIT :limit",
        {"person": person_id, "limit": limit},
    )
    return [prompt_from(row) for row in rows]
