"""What rankings say of versions: blind turns, and what reward models foretold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlite_utils

from storage.database import Database
from storage.records import DUELS, BlindRanking, BlindReply, Prediction
from storage.values import now

_DUELS = ", ".join(f"'{name}'" for name in DUELS)
_OF_PERSON = "(:person IS NULL OR rankings.person_id = :person)"
# The first ranking, while it or a revision of it stands: whoever saved it has seen who wrote what,
# so that a later one is not blind.
_BLIND = f"""
    SELECT rankings.id AS ranking_id, rankings.turn_id, rankings.person_id,
        turns.text AS prompt, min(replies.slot_type) AS slot_type,
        json_group_array(json_array(replies.version, ranking_entries.rank, replies.text)) AS replies
    FROM rankings
    JOIN turns ON turns.id = rankings.turn_id
    JOIN ranking_entries ON ranking_entries.ranking_id = rankings.id
    JOIN replies ON replies.id = ranking_entries.reply_id
    WHERE {_OF_PERSON} AND rankings.state != 'withdrawn'
        AND EXISTS (SELECT 1 FROM rankings AS kept WHERE kept.turn_id = rankings.turn_id
            AND kept.person_id = rankings.person_id AND kept.state = 'active')
        AND replies.slot_type IN ({_DUELS})
        AND rankings.id = (SELECT min(id) FROM rankings AS own
            WHERE own.turn_id = rankings.turn_id AND own.person_id = rankings.person_id)
        AND (turns.revealed_after IS NULL OR rankings.id <= turns.revealed_after)
    GROUP BY rankings.id ORDER BY rankings.id
"""


@dataclass(frozen=True)
class DuelCounts:
    """Turns that mixed two versions, their rankings, and how many of those are blind."""

    turns: int
    ranked: int
    blind: int


def blind_rankings(db: Database, person_id: int | None = None) -> list[BlindRanking]:
    """The blind rankings of a person, or of all, oldest first."""
    return [
        BlindRanking(
            **{
                **row,
                "replies": tuple(BlindReply(*reply) for reply in json.loads(row["replies"])),
            }
        )
        for row in db.rows(_BLIND, {"person": person_id})
    ]


def duel_counts(db: Database, person_id: int | None = None) -> DuelCounts:
    """How many duels a person, or all, were shown and ranked, and how many rankings are blind."""
    duels = f"SELECT 1 FROM replies WHERE turn_id = turns.id AND slot_type IN ({_DUELS})"
    row = db.rows(
        f"""
        SELECT (SELECT count(*) FROM turns
                JOIN conversations ON conversations.id = turns.conversation_id
                WHERE (:person IS NULL OR conversations.person_id = :person)
                    AND EXISTS ({duels})) AS turns,
            (SELECT count(*) FROM rankings JOIN turns ON turns.id = rankings.turn_id
                WHERE rankings.state = 'active' AND {_OF_PERSON} AND EXISTS ({duels})) AS ranked,
            (SELECT count(*) FROM ({_BLIND})) AS blind
        """,
        {"person": person_id},
    )[0]
    return DuelCounts(**row)


def reveal(db: Database, turn_id: int, person_id: int) -> None:
    """Note that somebody looks up who wrote the replies of a duel that they have not ranked."""
    ranked = "SELECT 1 FROM rankings WHERE turn_id = ? AND person_id = ? AND state = 'active'"
    with db.transaction() as connection:
        if db.row(ranked, [turn_id, person_id]) is None:
            mark_as_seen(connection, turn_id)


def mark_as_seen(connection: sqlite_utils.Database, turn_id: int) -> None:
    """In the caller's transaction: no later ranking of the turn is blind, if it is a duel."""
    connection.execute(
        "UPDATE turns SET revealed_after = (SELECT coalesce(max(id), 0) FROM rankings) "
        "WHERE id = ? AND revealed_after IS NULL AND EXISTS (SELECT 1 FROM replies "
        f"WHERE turn_id = turns.id AND slot_type IN ({_DUELS}))",
        [turn_id],
    )


def add_predictions(db: Database, found: Sequence[Prediction]) -> None:
    """Store what a reward model foretold; a ranking keeps the first. Erased ones are skipped."""
    with db.transaction() as connection:
        for one in found:
            connection.execute(
                "INSERT INTO predictions (ranking_id, version, right_pairs, pairs, created_at) "
                "SELECT id, ?, ?, ?, ? FROM rankings WHERE id = ? ON CONFLICT DO NOTHING",
                [one.version, one.right_pairs, one.pairs, now(), one.ranking_id],
            )


def predicted_rankings(db: Database) -> set[int]:
    """Ids of the rankings that have a prediction."""
    return {row["ranking_id"] for row in db.rows("SELECT ranking_id FROM predictions")}


def list_predictions(db: Database, person_id: int | None = None) -> list[Prediction]:
    """Predictions of the active rankings of a person, or of all, in the order of the rankings."""
    rows = db.rows(
        "SELECT ranking_id, version, right_pairs, pairs FROM predictions "
        "JOIN rankings ON rankings.id = predictions.ranking_id "
        f"WHERE rankings.state = 'active' AND {_OF_PERSON} ORDER BY ranking_id",
        {"person": person_id},
    )
    return [Prediction(**row) for row in rows]
