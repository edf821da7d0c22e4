"""What the rating queue is measured by: goals, times of ratings, and what was rated twice."""

from __future__ import annotations

import datetime
import json
from typing import Any

from chatrlhf.errors import BadInputError, NotFoundError
from storage.database import Database
from storage.records import RepeatedRanking
from storage.values import now

GOALS = range(1, 10_001)


def goal_of(db: Database, person_id: int) -> int | None:
    """How many rankings a day the person wants to give."""
    row = db.row("SELECT rankings_a_day FROM queue_goals WHERE person_id = ?", [person_id])
    return None if row is None else int(row["rankings_a_day"])


def set_goal(db: Database, person_id: int, rankings_a_day: int | None) -> None:
    """Set the person's daily goal, or remove it. Raises BadInputError or NotFoundError (person)."""
    if rankings_a_day is not None and rankings_a_day not in GOALS:
        raise BadInputError(
            f"the goal is {rankings_a_day}; it must be 1 to {GOALS[-1]:,} rankings a day, or none"
        )
    with db.transaction() as connection:
        if db.row("SELECT 1 FROM people WHERE id = ?", [person_id]) is None:
            raise NotFoundError(f"there is no person {person_id}")
        if rankings_a_day is None:
            connection.execute("DELETE FROM queue_goals WHERE person_id = ?", [person_id])
            return
        connection.execute(
            "INSERT INTO queue_goals (person_id, rankings_a_day, changed_at) VALUES (?, ?, ?) "
            "ON CONFLICT (person_id) DO UPDATE SET rankings_a_day = excluded.rankings_a_day, "
            "changed_at = excluded.changed_at",
            [person_id, rankings_a_day, now()],
        )


# Ratings given here, in the chat or the queue: an import is no work of today.
_GIVEN = """
    FROM rankings JOIN turns ON turns.id = rankings.turn_id
    JOIN conversations ON conversations.id = turns.conversation_id
    WHERE rankings.person_id = :person AND rankings.state = 'active'
    AND conversations.origin IN ('', 'queue', 'repeat')
"""


def rating_times(db: Database, person_id: int, since: datetime.datetime) -> list[datetime.datetime]:
    """When the person ranked since then, oldest first; hidden repeats are work too."""
    rows = db.rows(
        f"SELECT rankings.created_at {_GIVEN} AND rankings.created_at >= :since "
        "ORDER BY rankings.created_at",
        {"person": person_id, "since": now(since)},
    )
    return [datetime.datetime.fromisoformat(row["created_at"]) for row in rows]


def rating_days(db: Database, person_id: int, utc_offset_minutes: int) -> list[datetime.date]:
    """The days, as the person's clock has them, on which they ranked; newest first."""
    rows = db.rows(
        f"SELECT DISTINCT date(rankings.created_at, :offset) AS day {_GIVEN} ORDER BY day DESC",
        {"person": person_id, "offset": f"{utc_offset_minutes:+d} minutes"},
    )
    return [datetime.date.fromisoformat(row["day"]) for row in rows]


def skipped_count(db: Database, person_id: int) -> int:
    """How many prompts of the pool the person has skipped."""
    sql = (
        "SELECT count(*) AS n FROM queue_assignments AS mine "
        "JOIN queue_items ON queue_items.turn_id = mine.turn_id "
        "JOIN prompts ON prompts.id = queue_items.prompt_id AND prompts.deleted_at IS NULL "
        "WHERE mine.person_id = ? AND mine.skipped_at IS NOT NULL"
    )
    return int(db.rows(sql, [person_id])[0]["n"])


def repeated_rankings(db: Database, person_id: int | None = None) -> list[RepeatedRanking]:
    """All hidden repeats that were rated, of one person or of all."""
    rows = db.rows(
        "SELECT mine.person_id, mine.shown_order, first.id AS first, again.id AS again "
        "FROM queue_assignments AS mine "
        "JOIN rankings AS again ON again.turn_id = mine.turn_id "
        "AND again.person_id = mine.person_id AND again.state = 'active' "
        "JOIN rankings AS first ON first.turn_id = mine.repeats_turn_id "
        "AND first.person_id = mine.person_id AND first.state = 'active' "
        "WHERE mine.repeats_turn_id IS NOT NULL AND (:person IS NULL OR mine.person_id = :person) "
        "AND NOT first.all_bad AND NOT again.all_bad ORDER BY again.id",
        {"person": person_id},
    )
    found = []
    for row in rows:
        before = {one["reply_id"]: one["rank"] for one in _entries(db, row["first"])}
        now_ranks = [one["rank"] for one in _entries(db, row["again"])]
        order = json.loads(row["shown_order"])
        if set(order) == set(before) and len(order) == len(now_ranks):
            first = tuple(before[reply_id] for reply_id in order)
            found.append(RepeatedRanking(row["person_id"], first, tuple(now_ranks)))
    return found


def _entries(db: Database, ranking_id: int) -> list[dict[str, Any]]:
    """The ranks of a ranking, by the shown position of the replies."""
    return db.rows(
        "SELECT ranking_entries.reply_id, ranking_entries.rank FROM ranking_entries "
        "JOIN replies ON replies.id = ranking_entries.reply_id "
        "WHERE ranking_entries.ranking_id = ? ORDER BY replies.position",
        [ranking_id],
    )


def shared_rankings(db: Database) -> dict[int, dict[int, dict[int, int]]]:
    """Of the queue's items that several people ordered: by turn and person, ranks by reply id."""
    rows = db.rows(
        "SELECT rankings.turn_id, rankings.person_id, ranking_entries.reply_id, "
        "ranking_entries.rank FROM rankings "
        "JOIN turns ON turns.id = rankings.turn_id "
        "JOIN conversations ON conversations.id = turns.conversation_id "
        "JOIN ranking_entries ON ranking_entries.ranking_id = rankings.id "
        "WHERE conversations.origin = 'queue' AND rankings.state = 'active' "
        "AND NOT rankings.all_bad AND (SELECT max(rank) FROM ranking_entries AS entries "
        "WHERE entries.ranking_id = rankings.id) > 1 ORDER BY rankings.id"
    )
    found: dict[int, dict[int, dict[int, int]]] = {}
    for row in rows:
        people = found.setdefault(row["turn_id"], {})
        people.setdefault(row["person_id"], {})[row["reply_id"]] = row["rank"]
    return {turn_id: people for turn_id, people in found.items() if len(people) > 1}
