"""Marks on the versions that were trained on ratings which are about to be erased."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlite_utils

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


def mark_versions_of_turns(
    connection: sqlite_utils.Database, where: str, identity: int | str
) -> None:
    """Count the rankings about to go with turns into the versions that were trained on them."""
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


def mark_versions_of_rankings(
    connection: sqlite_utils.Database, ranking_ids: Sequence[int]
) -> list[str]:
    """Count one rating, given as all its revisions; the names of the versions that learned it."""
    rows = connection.execute(
        """
        UPDATE versions SET erased_rankings = erased_rankings + 1
        WHERE run_id IS NOT NULL AND (SELECT last_ranking_id FROM runs WHERE runs.id = run_id)
            >= (SELECT min(value) FROM json_each(?))
        RETURNING name
        """,
        [json.dumps(list(ranking_ids))],
    )
    return [row[0] for row in rows.fetchall()]
