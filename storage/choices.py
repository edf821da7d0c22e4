"""What the replies of a turn were chosen from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import sqlite_utils

from chatrlhf.errors import BadInputError, NotFoundError
from storage.database import Database, Parameters
from storage.records import Choice
from storage.values import checked_integer, checked_text, to_json


def insert_choice(connection: sqlite_utils.Database, turn_id: int, choice: Choice) -> None:
    """Insert the choice of a new turn in the caller's transaction. Raises BadInputError."""
    values = [
        turn_id,
        checked_text(choice.policy, "the policy", limit=40),
        checked_integer(choice.candidates, "the candidates"),
        *_ending(choice.version, choice.scores, choice.note),
    ]
    connection.execute(
        "INSERT INTO choices (turn_id, policy, candidates, version, scores, note) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        values,
    )


def finish_choice(
    db: Database, turn_id: int, *, version: str, scores: Sequence[float], note: str
) -> None:
    """Store the scores of all candidates of a turn, or a note on why there are none.

    Raises:
        BadInputError: a score is not finite.
        NotFoundError: the turn has no choice, or has been erased.
    """
    values = [*_ending(version, scores, note), turn_id]
    with db.transaction() as connection:
        cursor = connection.execute(
            "UPDATE choices SET version = ?, scores = ?, note = ? WHERE turn_id = ?", values
        )
        if not cursor.rowcount:
            raise NotFoundError(f"there is no choice of turn {turn_id}")


def choices_of(db: Database, where: str, parameters: Parameters) -> dict[int, Choice]:
    """By turn id, the choices of the turns that a condition on ``turns`` selects."""
    rows = db.rows(
        f"SELECT choices.* FROM choices JOIN turns ON turns.id = choices.turn_id WHERE {where}",
        parameters,
    )
    found = {}
    for row in rows:
        turn_id = row.pop("turn_id")
        found[turn_id] = Choice(**{**row, "scores": tuple(json.loads(row["scores"]))})
    return found


def _ending(version: str, scores: Sequence[float], note: str) -> list[str]:
    """Values of the columns that are known once the candidates are."""
    for score in scores:
        if not math.isfinite(score):
            raise BadInputError(f"a score is {score}; it must be a number")
    return [
        checked_text(version, "the version", may_be_blank=True, limit=100),
        to_json([float(score) for score in scores]),
        checked_text(note, "the note", may_be_blank=True),
    ]
