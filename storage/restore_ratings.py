"""What people made of one turn, back into rows: labels, rankings, answers of their own."""

from __future__ import annotations

from collections.abc import Mapping

from chatrlhf.errors import BadInputError
from storage.archive import ArchivedAnswer, ArchivedRanking, ArchivedReply
from storage.database import Database, insert
from storage.labels import check_label
from storage.rankings import active_ranking, checked_extras, dense_ranks, insert_ranking
from storage.records import Turn
from storage.replies import RANKABLE
from storage.restore_values import Added, PersonId, Wrote, checked_moment
from storage.values import checked_text


class RatingsRestorer:
    """Writes ratings of the turns of one conversation that are new.

    ``by_content``: times do not count, because each import of a data set is of another time.
    """

    def __init__(
        self, db: Database, person_id: PersonId, wrote: Wrote, *, by_content: bool
    ) -> None:
        self._db = db
        self._connection = db.connection()
        self._person_id = person_id
        self._wrote = wrote
        self._by_content = by_content
        self._rankings: dict[int, int] = {}
        self._matched: set[tuple[str, int]] = set()

    def labels(self, reply: ArchivedReply, reply_id: int) -> Added:
        """Write the labels of a reply; a later word replaces an earlier one."""
        added = Added()
        for label in reply.labels:
            if reply.state not in RANKABLE:
                raise BadInputError(f"reply {reply.id} is {reply.state}, so it has no labels")
            person_id = self._person_id(label.person)
            name = check_label(label.label)
            known = self._db.row(
                "SELECT 1 FROM labels WHERE reply_id = ? AND person_id = ? AND label = ?",
                [reply_id, person_id, name],
            )
            # A data set never replaces a person's word.
            cursor = self._connection.execute(
                "INSERT INTO labels (reply_id, person_id, label, value, created_at) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (reply_id, person_id, label) "
                "DO UPDATE SET value = excluded.value, created_at = excluded.created_at "
                "WHERE excluded.created_at > labels.created_at AND NOT ?",
                [
                    reply_id,
                    person_id,
                    name,
                    int(label.value),
                    checked_moment(label.created_at),
                    self._by_content,
                ],
            )
            added += Added(labels=cursor.rowcount)
            if known is None:
                self._wrote("label", reply_id, f"{person_id} {name}")
        return added

    def ranking(
        self,
        turn: Turn,
        record: ArchivedRanking,
        reply_ids: Mapping[int, int],
        *,
        is_new: bool,
    ) -> Added:
        """Write a ranking of a turn; ``reply_ids`` turns ids of the record into ids of rows."""
        person_id = self._person_id(record.person)
        dense = dense_ranks(turn, _ranks(record, reply_ids), all_bad=False)
        extras = checked_extras(
            record.strength,
            record.comment,
            all_bad=record.all_bad,
            idempotency_key=self._free_key(person_id, record.idempotency_key),
        )
        added = Added()
        known = None if is_new else self._find_ranking(turn.id, person_id, dense, record)
        if known is None:
            columns = {
                **extras,
                "state": self._state(turn.id, person_id, record),
                "revision_of": self._rankings.get(record.revision_of or 0),
                "created_at": checked_moment(record.created_at),
            }
            known = insert_ranking(self._db, turn.id, person_id, dense, columns)
            added = Added(rankings=1)
            self._wrote("ranking", known)
        self._matched.add(("ranking", known))
        self._rankings[record.id] = known
        return added

    def _find_ranking(
        self, turn_id: int, person_id: int, dense: Mapping[int, int], record: ArchivedRanking
    ) -> int | None:
        rows = self._db.rows(
            "SELECT id FROM rankings WHERE turn_id = ? AND person_id = ? AND strength IS ? "
            "AND comment = ? AND all_bad = ? AND (? OR created_at = ?) ORDER BY id",
            [
                turn_id,
                person_id,
                record.strength,
                record.comment,
                record.all_bad,
                self._by_content,
                record.created_at,
            ],
        )
        for row in rows:
            entries = self._db.rows(
                "SELECT reply_id, rank FROM ranking_entries WHERE ranking_id = ?", [row["id"]]
            )
            same = {entry["reply_id"]: entry["rank"] for entry in entries} == dense
            if same and ("ranking", row["id"]) not in self._matched:
                return int(row["id"])
        return None

    def _state(self, turn_id: int, person_id: int, record: ArchivedRanking) -> str:
        """Of two active rankings of one person, the later one counts."""
        active = active_ranking(self._db, turn_id, person_id)
        if record.state != "active" or active is None:
            return record.state
        if active.created_at > record.created_at:
            return "superseded"
        self._connection.execute(
            "UPDATE rankings SET state = 'superseded' WHERE id = ?", [active.id]
        )
        self._wrote("superseded", active.id)
        return "active"

    def _free_key(self, person_id: int, key: str | None) -> str | None:
        """The idempotency key, unless a ranking here has it."""
        sql = "SELECT 1 FROM rankings WHERE person_id = ? AND idempotency_key = ?"
        return None if key is None or self._db.row(sql, [person_id, key]) else key

    def answer(self, turn_id: int, record: ArchivedAnswer) -> Added:
        """Write a demonstration that answers the turn."""
        row = {
            "turn_id": turn_id,
            "person_id": self._person_id(record.person),
            "messages": None,
            "text": checked_text(record.text, "the demonstration"),
            "created_at": checked_moment(record.created_at),
        }
        known = self._db.rows(
            "SELECT id FROM demonstrations WHERE turn_id = ? AND person_id = ? AND text = ? "
            "AND (? OR created_at = ?) ORDER BY id",
            [turn_id, row["person_id"], record.text, self._by_content, record.created_at],
        )
        added = Added()
        free = [one["id"] for one in known if ("answer", one["id"]) not in self._matched]
        if not free:
            free = [insert(self._connection, "demonstrations", row)]
            added = Added(demonstrations=1)
            self._wrote("demonstration", free[0])
        self._matched.add(("answer", free[0]))
        return added


def _ranks(record: ArchivedRanking, reply_ids: Mapping[int, int]) -> dict[int, int]:
    strange = [one.reply_id for one in record.ranks if one.reply_id not in reply_ids]
    if strange:
        raise BadInputError(f"a ranking names reply {strange[0]}, which the turn does not have")
    if len({one.reply_id for one in record.ranks}) != len(record.ranks):
        raise BadInputError("a ranking names a reply twice")
    return {reply_ids[one.reply_id]: one.rank for one in record.ranks}
