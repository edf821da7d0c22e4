"""Hidden repeats of the rating queue: something that a person rated a while ago, in another order.

A repeat is a copy with ids of its own, so that nothing tells it apart, in a conversation of the
origin ``repeat``. It measures how consistent the person is, and is never counted as training data.
"""

from __future__ import annotations

import random

import sqlite_utils

from storage.conversations import get_turn
from storage.database import Database, insert
from storage.prompts import PROMPT_COLUMNS, prompt_from
from storage.records import Assigned, Prompt, Turn
from storage.values import now, to_json

ORIGIN = "repeat"
DISTANCE = 5  # so many first ratings lie between an item and its repeat


def take_repeat(db: Database, person_id: int, rng: random.Random) -> Assigned | None:
    """Give the person something again that they rated a while ago; in the caller's transaction.

    None when there is nothing to repeat.
    """
    old_enough = _repeatable(db, person_id)[DISTANCE:]
    if not old_enough:
        return None
    original = get_turn(db, rng.choice(old_enough))
    return _copy(db, db.connection(), original, person_id, rng)


def _repeatable(db: Database, person_id: int) -> list[int]:
    """Turns that the person ordered and was not yet asked again, the newest first."""
    rows = db.rows(
        "SELECT mine.turn_id FROM queue_assignments AS mine "
        "JOIN queue_items ON queue_items.turn_id = mine.turn_id "
        "JOIN prompts ON prompts.id = queue_items.prompt_id AND prompts.deleted_at IS NULL "
        "JOIN rankings ON rankings.turn_id = mine.turn_id AND rankings.person_id = mine.person_id "
        "AND rankings.state = 'active' AND NOT rankings.all_bad "
        "WHERE mine.person_id = :person AND mine.repeats_turn_id IS NULL "
        "AND (SELECT max(rank) FROM ranking_entries WHERE ranking_id = rankings.id) > 1 "
        "AND NOT EXISTS (SELECT 1 FROM queue_assignments AS again "
        "WHERE again.person_id = :person AND again.repeats_turn_id = mine.turn_id) "
        "ORDER BY rankings.id DESC",
        {"person": person_id},
    )
    return [int(row["turn_id"]) for row in rows]


def _copy(
    db: Database,
    connection: sqlite_utils.Database,
    original: Turn,
    person_id: int,
    rng: random.Random,
) -> Assigned:
    moment = now()
    system_prompt = db.rows(
        "SELECT system_prompt FROM conversations WHERE id = ?", [original.conversation_id]
    )[0]["system_prompt"]
    conversation = {
        "person_id": person_id,
        "title": "",
        "system_prompt": system_prompt,
        "created_at": moment,
        "origin": ORIGIN,
    }
    turn = {
        "conversation_id": insert(connection, "conversations", conversation),
        "parent_reply_id": None,
        "text": original.text,
        "created_at": moment,
    }
    turn_id = insert(connection, "turns", turn)
    shown = [reply.id for reply in original.replies if reply.state != "interrupted"]
    order = shown
    while len(shown) > 1 and order == shown:
        order = rng.sample(shown, len(shown))
    for position, reply_id in enumerate(order):
        connection.execute(
            "INSERT INTO replies (turn_id, position, text, text_sha256, token_ids, logprobs, "
            "version, seed, sampling, state, finish_reason, slot_type, candidate, score, "
            "propensity, created_at) SELECT ?, ?, text, text_sha256, token_ids, logprobs, version, "
            "seed, sampling, state, finish_reason, slot_type, candidate, score, propensity, ? "
            "FROM replies WHERE id = ?",
            [turn_id, position, moment, reply_id],
        )
    connection.execute(
        "INSERT INTO choices SELECT ?, policy, candidates, version, scores, note "
        "FROM choices WHERE turn_id = ?",
        [turn_id, original.id],
    )
    connection.execute(
        "INSERT INTO queue_assignments (turn_id, person_id, leased_at, reason, repeats_turn_id, "
        "shown_order) VALUES (?, ?, ?, '', ?, ?)",
        [turn_id, person_id, moment, original.id, to_json(order)],
    )
    return Assigned(turn_id, _prompt_of_item(db, original.id))


def open_repeat(db: Database, person_id: int) -> Assigned | None:
    """The repeat that the person was given and has not rated yet."""
    row = db.row(
        "SELECT turn_id, repeats_turn_id FROM queue_assignments AS mine "
        "WHERE person_id = ? AND repeats_turn_id IS NOT NULL AND skipped_at IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM rankings WHERE rankings.turn_id = mine.turn_id "
        "AND rankings.state <> 'superseded') "
        "AND EXISTS (SELECT 1 FROM queue_items JOIN prompts ON prompts.id = queue_items.prompt_id "
        "WHERE queue_items.turn_id = mine.repeats_turn_id AND prompts.deleted_at IS NULL) "
        "ORDER BY leased_at DESC LIMIT 1",
        [person_id],
    )
    if row is None:
        return None
    return Assigned(int(row["turn_id"]), _prompt_of_item(db, row["repeats_turn_id"]))


def _prompt_of_item(db: Database, turn_id: int) -> Prompt:
    row = db.rows(
        f"SELECT {PROMPT_COLUMNS} FROM queue_items "
        "JOIN prompts ON prompts.id = queue_items.prompt_id WHERE queue_items.turn_id = ?",
        [turn_id],
    )[0]
    return prompt_from(row)
