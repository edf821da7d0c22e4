"""Deleting a ranking in two steps: taken back, which can be undone, then erased with its rows."""

from __future__ import annotations

from chatrlhf.errors import ConflictError
from storage.database import Database
from storage.erasure import mark_versions_of_rankings
from storage.evidence import mark_as_seen
from storage.people import append_audit
from storage.rankings import active_ranking, get_ranking
from storage.records import Ranking


def take_back(db: Database, ranking_id: int, person_id: int | None = None) -> Ranking:
    """Withdraw a rating as a whole: no earlier order of it becomes active again.

    Raises:
        NotFoundError: no such ranking, or it is not of ``person_id``, if given.
        ConflictError: it is not the active one.
    """
    with db.transaction() as connection:
        before = get_ranking(db, ranking_id, person_id)
        if before.state != "active":
            raise ConflictError(f"ranking {ranking_id} is {before.state}; delete the active one")
        connection.execute("UPDATE rankings SET state = 'withdrawn' WHERE id = ?", [ranking_id])
        return get_ranking(db, ranking_id)


def bring_back(db: Database, ranking_id: int, person_id: int | None = None) -> Ranking:
    """Undo a withdrawal.

    Raises:
        NotFoundError: no such ranking (it may be erased), or it is not of ``person_id``, if given.
        ConflictError: it is not withdrawn, or the turn has been ranked again since.
    """
    with db.transaction() as connection:
        before = get_ranking(db, ranking_id, person_id)
        if before.state != "withdrawn":
            raise ConflictError(f"ranking {ranking_id} is {before.state}, so nothing is to undo")
        now_active = active_ranking(db, before.turn_id, before.person_id)
        if now_active is not None:
            raise ConflictError(
                f"turn {before.turn_id} has been ranked again since, by ranking {now_active.id}; "
                "change that one"
            )
        connection.execute("UPDATE rankings SET state = 'active' WHERE id = ?", [ranking_id])
        return get_ranking(db, ranking_id)


def erase_ranking(
    db: Database, ranking_id: int, person_id: int | None = None, *, by: int | None = None
) -> list[str]:
    """Erase a rating with its earlier orders; the versions that learned from it are marked.

    Returns the names of these versions. ``by`` is who asked, for the audit log.

    Raises:
        NotFoundError: no such ranking, or it is not of ``person_id``, if given.
        ConflictError: a revision has replaced it.
    """
    with db.transaction() as connection:
        ranking = get_ranking(db, ranking_id, person_id)
        if ranking.state == "superseded":
            raise ConflictError(
                f"ranking {ranking_id} was replaced by a revision; erase the revision, "
                "and this one goes with it"
            )
        mine = "turn_id = ? AND person_id = ? AND id <= ?"
        values = [ranking.turn_id, ranking.person_id, ranking_id]
        # Orders that were undone taught nobody, but for the one that is erased now.
        sql = f"SELECT id FROM rankings WHERE {mine} AND (state = 'superseded' OR id = ?)"
        learned = [int(row["id"]) for row in db.rows(sql, [*values, ranking_id])]
        marked = mark_versions_of_rankings(connection, learned)
        # Whoever ranked has seen who wrote what: if the turn was a duel, it is blind no more.
        mark_as_seen(connection, ranking.turn_id)
        connection.execute(f"DELETE FROM rankings WHERE {mine}", values)
        detail = {"ranking": ranking_id, "turn": ranking.turn_id, "versions": marked}
        append_audit(connection, by, "erase ranking", detail)
    db.forget_erased()
    return marked
