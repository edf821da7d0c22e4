"""What the database says of a turn."""

from __future__ import annotations

from typing import NamedTuple

from page_server import AppServer
from real_server import RealServer

Server = RealServer | AppServer


class StoredRanking(NamedTuple):
    """A row of rankings; ``ranks`` are in shown order, ``revises`` says whether it replaces one."""

    state: str
    ranks: list[int]
    all_bad: bool
    revises: bool


def rankings(server: Server, turn_id: int) -> list[StoredRanking]:
    """The rankings that a turn has had, oldest first."""
    found = []
    rows = server.rows("SELECT * FROM rankings WHERE turn_id = ? ORDER BY id", turn_id)
    for row in rows:
        entries = server.rows(
            "SELECT e.rank FROM ranking_entries e JOIN replies r ON r.id = e.reply_id "
            "WHERE e.ranking_id = ? ORDER BY r.position",
            row["id"],
        )
        ranks = [entry["rank"] for entry in entries]
        revises = row["revision_of"] is not None
        found.append(StoredRanking(row["state"], ranks, bool(row["all_bad"]), revises))
    return found


def replies(server: Server, turn_id: int) -> list[dict]:
    """The replies of a turn, in shown order."""
    rows = server.rows("SELECT * FROM replies WHERE turn_id = ? ORDER BY position", turn_id)
    return [dict(row) for row in rows]


def turns(server: Server, conversation_id: int) -> list[dict]:
    """The turns of a conversation, oldest first."""
    sql = "SELECT * FROM turns WHERE conversation_id = ? ORDER BY id"
    return [dict(row) for row in server.rows(sql, conversation_id)]


def demonstrations(server: Server, turn_id: int) -> list[str]:
    """What people wrote for a turn, oldest first."""
    sql = "SELECT text FROM demonstrations WHERE turn_id = ? ORDER BY id"
    return [row["text"] for row in server.rows(sql, turn_id)]
