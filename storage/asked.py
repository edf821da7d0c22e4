"""Which turns were to be ranked: those with several replies."""

from __future__ import annotations

from storage.database import Database


def is_due(db: Database, conversation_id: int, one_in: int) -> bool:
    """Whether the next turn of the conversation's owner is to be ranked, as one in so many are.

    True when none of their newest ``one_in - 1`` turns, in any chat, had several replies.
    """
    newest = db.rows(
        "SELECT (SELECT count(*) FROM replies WHERE replies.turn_id = turns.id) AS replies "
        "FROM turns JOIN conversations ON conversations.id = turns.conversation_id "
        "WHERE conversations.origin = '' AND conversations.person_id = "
        "(SELECT person_id FROM conversations WHERE id = ?) ORDER BY turns.id DESC LIMIT ?",
        [conversation_id, one_in - 1],
    )
    return all(row["replies"] == 1 for row in newest)
