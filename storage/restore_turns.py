"""The turns of one conversation, back into rows with what people made of them."""

from __future__ import annotations

from chatrlhf.errors import BadInputError
from storage.archive import ArchivedTurn
from storage.choices import insert_choice
from storage.conversations import get_turn
from storage.database import Database, insert
from storage.records import DUELS, Turn
from storage.restore_ratings import RatingsRestorer
from storage.restore_values import (
    Added,
    PersonId,
    Wrote,
    check_turn,
    in_order,
    reply_row,
    unlogged,
)


class TurnsRestorer:
    """Writes the turns of one conversation; ids of the record become ids of rows.

    ``by_content``: times do not count, because each import of a data set is of another time.
    ``wrote`` hears nothing where the conversation itself is new, so that all of it goes with it.
    """

    def __init__(
        self,
        db: Database,
        person_id: PersonId,
        conversation_id: int,
        wrote: Wrote,
        *,
        is_new: bool,
        by_content: bool,
    ) -> None:
        self.added = Added()
        self._is_new = is_new
        self._db = db
        self._conversation_id = conversation_id
        self._wrote = unlogged if is_new else wrote
        self._by_content = by_content
        self._replies: dict[int, int] = {}
        self._matched: set[int] = set()
        self._ratings = RatingsRestorer(db, person_id, self._wrote, by_content=by_content)

    def turn(self, record: ArchivedTurn) -> None:
        """Write what is new of a turn; its parent was written before."""
        if record.parent_reply_id is not None and record.parent_reply_id not in self._replies:
            raise BadInputError(
                f"it continues reply {record.parent_reply_id}, which no turn before it has"
            )
        check_turn(record)
        turn = self._find_turn(record)
        is_new = turn is None
        turn = turn or self._insert_turn(record)
        self._matched.add(turn.id)
        mine = {row.position: row.id for row in turn.replies}
        for reply in record.replies:
            self._replies[reply.id] = mine[reply.position]
            self.added += self._ratings.labels(reply, mine[reply.position])
        for ranking in record.rankings:
            self.added += self._ratings.ranking(turn, ranking, self._replies, is_new=is_new)
        for answer in record.demonstrations:
            self.added += self._ratings.answer(turn.id, answer)

    def _find_turn(self, record: ArchivedTurn) -> Turn | None:
        if self._is_new:
            return None
        rows = self._db.rows(
            "SELECT id FROM turns WHERE conversation_id = ? AND text = ? AND parent_reply_id IS ? "
            "AND (? OR created_at = ?) ORDER BY id",
            [
                self._conversation_id,
                record.text,
                self._parent(record),
                self._by_content,
                record.created_at,
            ],
        )
        texts = [(reply.position, reply.text) for reply in in_order(record)]
        for row in rows:
            turn = get_turn(self._db, row["id"])
            if turn.id not in self._matched and texts == [
                (reply.position, reply.text) for reply in turn.replies
            ]:
                return turn
        return None

    def _parent(self, record: ArchivedTurn) -> int | None:
        return None if record.parent_reply_id is None else self._replies[record.parent_reply_id]

    def _insert_turn(self, record: ArchivedTurn) -> Turn:
        connection = self._db.connection()
        turn = {
            "conversation_id": self._conversation_id,
            "parent_reply_id": self._parent(record),
            "text": record.text,
            "created_at": record.created_at,
        }
        if any(reply.slot_type in DUELS for reply in record.replies):
            # Its versions may be those of another data folder, so no ranking of it counts here.
            turn["revealed_after"] = 0
        turn_id = insert(connection, "turns", turn)
        for reply in in_order(record):
            insert(connection, "replies", {"turn_id": turn_id, **reply_row(reply)})
        if record.choice is not None:
            insert_choice(connection, turn_id, record.choice)
        self._wrote("turn", turn_id)
        self.added += Added(turns=1)
        return get_turn(self._db, turn_id)
