"""Which prompt of the pool a person is asked to rate next."""

from __future__ import annotations

import json

from storage.database import Database
from storage.records import Prompt

# By text: a prompt that was typed in the chat is rated as well.
_UNRANKED = """
    FROM prompts WHERE text NOT IN (
        SELECT turns.text FROM rankings JOIN turns ON turns.id = rankings.turn_id
        WHERE rankings.person_id = ? AND rankings.state = 'active')
"""


def next_unranked(db: Database, person_id: int) -> tuple[Prompt | None, int]:
    """The oldest prompt that the person has not ranked, or None; and how many there are."""
    remaining = db.rows(f"SELECT count(*) AS n {_UNRANKED}", [person_id])[0]["n"]
    columns = "id, text, system_prompt, tags, split"
    row = db.row(f"SELECT {columns} {_UNRANKED} ORDER BY id LIMIT 1", [person_id])
    if row is None:
        return None, 0
    return Prompt(**{**row, "tags": tuple(json.loads(row["tags"]))}), int(remaining)
