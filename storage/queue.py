"""The rating queue: who is given which item.

An item is a person's by an assignment: a lease, until it is rated (an active ranking says so),
skipped, or too old. An item takes as many people as it needs ratings, those who hold a lease
included. A lease from the future, as a clock that was set back leaves, holds nothing.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass
from typing import Any

import sqlite_utils

from chatrlhf.errors import ConflictError, NotFoundError
from storage.database import Database
from storage.prompts import PROMPT_COLUMNS, prompt_from
from storage.queue_items import CAN_BE_RATED, NEW_TO_PERSON
from storage.queue_repeats import open_repeat, take_repeat
from storage.records import Assigned
from storage.values import checked_text, now

# Counts of a row of queue_items, and a condition on it; they share the names of `_parameters`.
_RATED = (
    "(SELECT count(*) FROM rankings WHERE rankings.turn_id = queue_items.turn_id "
    "AND rankings.state = 'active')"
)
_HELD = """(SELECT count(*) FROM queue_assignments AS held
    WHERE held.turn_id = queue_items.turn_id AND held.person_id <> :person
    AND held.skipped_at IS NULL AND held.leased_at BETWEEN :oldest AND :now
    AND NOT EXISTS (SELECT 1 FROM rankings WHERE rankings.turn_id = held.turn_id
        AND rankings.person_id = held.person_id AND rankings.state = 'active'))"""
_NOT_SKIPPED = """NOT EXISTS (SELECT 1 FROM queue_assignments AS skipped
    WHERE skipped.turn_id = queue_items.turn_id AND skipped.person_id = :person
    AND skipped.skipped_at IS NOT NULL)"""
_LEASED_AT = """(SELECT mine.leased_at FROM queue_assignments AS mine
    WHERE mine.turn_id = queue_items.turn_id AND mine.person_id = :person)"""


@dataclass(frozen=True)
class Terms:
    """How items are handed out: to ``overlap`` people each, for ``lease_minutes``.

    ``repeat_share`` is how many of the items are hidden repeats.
    """

    overlap: int = 1
    lease_minutes: float = 15.0
    repeat_share: float = 0.1


def _parameters(person_id: int, terms: Terms) -> dict[str, Any]:
    moment = datetime.datetime.now(datetime.UTC)
    oldest = moment - datetime.timedelta(minutes=terms.lease_minutes)
    return {
        "person": person_id,
        "overlap": terms.overlap,
        "oldest": now(oldest),
        "now": now(moment),
    }


def remaining(db: Database, person_id: int, terms: Terms) -> int:
    """How many prompts the person may still rate, those that others hold just now included."""
    sql = f"""
        SELECT count(*) AS n FROM prompts LEFT JOIN queue_items
        ON queue_items.prompt_id = prompts.id
        WHERE {NEW_TO_PERSON} AND (queue_items.turn_id IS NULL
            OR ({_NOT_SKIPPED} AND {_RATED} < :overlap))
    """
    return int(db.rows(sql, _parameters(person_id, terms))[0]["n"])


def take(
    db: Database, person_id: int, terms: Terms, rng: random.Random, prompt_id: int | None = None
) -> Assigned | None:
    """Give the person the item that they hold, or another, for a lease that begins now.

    Now and then that is a hidden repeat; else the item that is nearest to having all its ratings,
    the oldest of several. With ``prompt_id``, only the item of that prompt. None when all items are
    rated or held by others.
    """
    with db.transaction() as connection:
        found = open_repeat(db, person_id) if prompt_id is None else None
        found = found or _item(db, person_id, terms, prompt_id, f"{_LEASED_AT} IS NOT NULL")
        if found is None and prompt_id is None and rng.random() < terms.repeat_share:
            # Not where nothing new is left: a row of repeats would give itself away.
            found = take_repeat(db, person_id, rng) if remaining(db, person_id, terms) else None
        found = found or _item(db, person_id, terms, prompt_id)
        if found is not None:
            _lease(connection, found.turn_id, person_id)
        return found


def _item(
    db: Database, person_id: int, terms: Terms, prompt_id: int | None, where: str = "1"
) -> Assigned | None:
    sql = f"""
        SELECT {PROMPT_COLUMNS}, queue_items.turn_id AS turn_id FROM queue_items
        JOIN prompts ON prompts.id = queue_items.prompt_id
        WHERE (:prompt IS NULL OR prompts.id = :prompt) AND {where} AND {NEW_TO_PERSON}
            AND {_NOT_SKIPPED} AND {CAN_BE_RATED} AND {_RATED} + {_HELD} < :overlap
        ORDER BY {_LEASED_AT} DESC, {_RATED} DESC, {_HELD} DESC, prompts.id LIMIT 1
    """
    row = db.row(sql, {**_parameters(person_id, terms), "prompt": prompt_id})
    if row is None:
        return None
    turn_id = int(row.pop("turn_id"))
    return Assigned(turn_id, prompt_from(row))


def _lease(connection: sqlite_utils.Database, turn_id: int, person_id: int) -> None:
    connection.execute(
        "INSERT INTO queue_assignments (turn_id, person_id, leased_at, reason, shown_order) "
        "VALUES (?, ?, ?, '', '[]') ON CONFLICT (turn_id, person_id) "
        "DO UPDATE SET leased_at = excluded.leased_at",
        [turn_id, person_id, now()],
    )


def skip(db: Database, turn_id: int, person_id: int, reason: str = "") -> None:
    """The person does not rate the item; it goes to others.

    Raises:
        BadInputError: the reason is refused.
        NotFoundError: the queue did not give the person this turn.
        ConflictError: the person has rated it.
    """
    checked_text(reason, "the reason", may_be_blank=True, limit=1000)
    with db.transaction() as connection:
        _assignment(db, turn_id, person_id)
        if db.row(
            "SELECT 1 FROM rankings WHERE turn_id = ? AND person_id = ? AND state = 'active'",
            [turn_id, person_id],
        ):
            raise ConflictError(f"turn {turn_id} is rated; undo the rating before you skip it")
        connection.execute(
            "UPDATE queue_assignments SET skipped_at = ?, reason = ? "
            "WHERE turn_id = ? AND person_id = ?",
            [now(), reason, turn_id, person_id],
        )


def unskip(db: Database, turn_id: int, person_id: int) -> None:
    """Undo `skip`; the lease begins anew."""
    with db.transaction() as connection:
        _assignment(db, turn_id, person_id)
        connection.execute(
            "UPDATE queue_assignments SET skipped_at = NULL, reason = '', leased_at = ? "
            "WHERE turn_id = ? AND person_id = ?",
            [now(), turn_id, person_id],
        )


def unskip_all(db: Database, person_id: int) -> int:
    """Give the person all that they skipped again, in time; returns how many."""
    with db.transaction() as connection:
        cursor = connection.execute(
            "UPDATE queue_assignments SET skipped_at = NULL, reason = '', leased_at = '' "
            "WHERE person_id = ? AND skipped_at IS NOT NULL AND repeats_turn_id IS NULL",
            [person_id],
        )
        return int(cursor.rowcount)


def _assignment(db: Database, turn_id: int, person_id: int) -> dict[str, Any]:
    row = db.row(
        "SELECT * FROM queue_assignments WHERE turn_id = ? AND person_id = ?", [turn_id, person_id]
    )
    if row is None:
        raise NotFoundError(f"the queue has not given you turn {turn_id}")
    return row
