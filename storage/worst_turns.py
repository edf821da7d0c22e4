"""Turns that people rated worst, for then and now."""

from __future__ import annotations

from dataclasses import dataclass

from storage.database import Database

# Labels that say that something is wrong with a reply.
_FAULTS = ("bad", "toxic", "wrong")


@dataclass(frozen=True)
class WorstTurn:
    """A turn whose replies were rated badly, none of them by the live version.

    ``best`` is the text of its best reply, ``version`` who wrote that. ``replay_turn_id`` is the
    newest turn that put the same prompt to the live version blind, if there is one.
    """

    turn_id: int
    conversation_id: int
    text: str
    version: str
    best: str
    all_bad: bool
    corrected: bool
    faults: int
    replies: int
    replay_turn_id: int | None


def worst_turns(db: Database, person_id: int, live: str, limit: int = 10) -> list[WorstTurn]:
    """The person's worst-rated turns, worst first, then the newest.

    Worst are those where all replies were bad, then those with a reply of the person's own, then by
    the share of replies with a label such as toxic.
    """
    labels = ", ".join(f"'{name}'" for name in _FAULTS)
    rows = db.rows(
        f"""
        WITH rated AS (
            SELECT turns.*, coalesce((SELECT all_bad FROM rankings
                    WHERE turn_id = turns.id AND person_id = :person AND state = 'active'), 0)
                    AS all_bad,
                EXISTS (SELECT 1 FROM demonstrations
                    WHERE turn_id = turns.id AND person_id = :person) AS corrected,
                (SELECT count(DISTINCT reply_id) FROM labels
                    JOIN replies ON replies.id = reply_id
                    WHERE replies.turn_id = turns.id AND labels.person_id = :person
                    AND label IN ({labels}) AND value = 1) AS faults,
                (SELECT count(*) FROM replies WHERE turn_id = turns.id) AS replies
            FROM turns JOIN conversations ON conversations.id = turns.conversation_id
            WHERE conversations.person_id = :person AND conversations.origin = ''
        )
        SELECT id AS turn_id, conversation_id, text, all_bad, corrected, faults, replies,
            (SELECT replies.id FROM replies
                LEFT JOIN rankings ON rankings.turn_id = rated.id
                    AND rankings.person_id = :person AND rankings.state = 'active'
                LEFT JOIN ranking_entries ON ranking_entries.ranking_id = rankings.id
                    AND ranking_entries.reply_id = replies.id
                WHERE replies.turn_id = rated.id AND replies.state IN ('complete', 'cancelled')
                ORDER BY coalesce(rank, 99), position LIMIT 1) AS best_id,
            (SELECT max(again.id) FROM turns AS again
                WHERE again.conversation_id = rated.conversation_id AND again.text = rated.text
                    AND again.parent_reply_id IS rated.parent_reply_id
                    AND EXISTS (SELECT 1 FROM replies WHERE turn_id = again.id
                        AND slot_type = 'replay' AND version = :live)) AS replay_turn_id
        FROM rated
        WHERE (all_bad OR corrected OR faults) AND NOT EXISTS (
            SELECT 1 FROM replies WHERE turn_id = rated.id AND version = :live)
        ORDER BY all_bad DESC, corrected DESC, 1.0 * faults / replies DESC, id DESC LIMIT :limit
        """,
        {"person": person_id, "live": live, "limit": limit},
    )
    found = []
    for row in rows:
        best = db.row("SELECT text, version FROM replies WHERE id = ?", [row.pop("best_id")])
        if best is None:  # every reply of it was interrupted
            continue
        flags = {name: bool(row[name]) for name in ("all_bad", "corrected")}
        found.append(
            WorstTurn(**{**row, **flags, "best": best["text"], "version": best["version"]})
        )
    return found
