"""Rankings of the replies of a turn, and their revisions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.conversations import get_turn, messages_before
from storage.database import Database, Parameters, insert
from storage.records import Message, RankedTurn, Ranking, Turn
from storage.replies import IMPORTED, RANKABLE
from storage.values import checked_text, now, sha256_of, to_json

STRENGTHS = range(1, 6)
# What training and its triggers take in: a hidden repeat says nothing that is new.
COUNTED = (
    "rankings.state = 'active' AND rankings.turn_id NOT IN (SELECT turns.id FROM turns "
    "JOIN conversations ON conversations.id = turns.conversation_id "
    "WHERE conversations.origin = 'repeat')"
)


def order_text(ranks_by_position: Mapping[int, int]) -> str:
    """The order in shown positions counted from 1: ``{0: 2, 1: 1, 2: 2}`` gives ``2>1=3``."""
    by_rank: dict[int, list[int]] = {}
    for position, rank in sorted(ranks_by_position.items()):
        by_rank.setdefault(rank, []).append(position + 1)
    return ">".join("=".join(map(str, by_rank[rank])) for rank in sorted(by_rank))


def comparison_count(ranks: Iterable[int]) -> int:
    """How many untied pairs the ranks imply."""
    return sum(first != second for first, second in itertools.combinations(ranks, 2))


def save_ranking(
    db: Database,
    turn_id: int,
    person_id: int,
    ranks: Mapping[int, int],
    *,
    strength: int | None = None,
    comment: str = "",
    all_bad: bool = False,
    idempotency_key: str | None = None,
) -> Ranking:
    """Store an order of all finished replies of the turn; it supersedes the person's earlier one.

    Args:
        db: the database.
        turn_id: the turn.
        person_id: who ranks.
        ranks: rank by reply id, from 1 (best) to K; equal ranks are ties. Stored densely: 1, 2,
            2, 4 becomes 1, 2, 2, 3. With ``all_bad`` it may be empty, which ties all.
        strength: how sure, 1 to 5, or None.
        comment: any text.
        all_bad: no reply is acceptable.
        idempotency_key: the same key with the same content gives the same ranking again.

    Raises:
        BadInputError: ranks do not cover the finished replies exactly, or are not in 1 .. K.
        NotFoundError: no such turn or person.
        ConflictError: replies still stream, or the key was used for other content.
    """
    extras = checked_extras(strength, comment, all_bad=all_bad, idempotency_key=idempotency_key)
    with db.transaction():
        return _save(db, turn_id, person_id, ranks, extras)


def revise_ranking(
    db: Database,
    ranking_id: int,
    ranks: Mapping[int, int],
    *,
    person_id: int | None = None,
    strength: int | None = None,
    comment: str = "",
    all_bad: bool = False,
    idempotency_key: str | None = None,
) -> Ranking:
    """Store a new ranking in place of an active one; arguments and errors of `save_ranking`."""
    extras = checked_extras(strength, comment, all_bad=all_bad, idempotency_key=idempotency_key)
    with db.transaction():
        before = get_ranking(db, ranking_id, person_id)
        return _save(db, before.turn_id, before.person_id, ranks, extras, revises=before)


def withdraw_ranking(db: Database, ranking_id: int, person_id: int | None = None) -> Ranking | None:
    """Undo: the one that it superseded becomes active again and is returned, if there is one."""
    with db.transaction() as connection:
        _require_active(get_ranking(db, ranking_id, person_id))
        connection.execute("UPDATE rankings SET state = 'withdrawn' WHERE id = ?", [ranking_id])
        restored = db.row(
            "UPDATE rankings SET state = 'active' WHERE state = 'superseded' AND id = "
            "(SELECT revision_of FROM rankings WHERE id = ?) RETURNING id",
            [ranking_id],
        )
        return None if restored is None else get_ranking(db, restored["id"])


def _require_active(ranking: Ranking) -> None:
    if ranking.state != "active":
        raise ConflictError(f"ranking {ranking.id} is {ranking.state}; change the active one")


def checked_extras(
    strength: int | None, comment: str, *, all_bad: bool, idempotency_key: str | None
) -> dict[str, Any]:
    """The columns of a ranking besides its order; BadInputError where one is refused."""
    if strength is not None and (isinstance(strength, bool) or strength not in STRENGTHS):
        raise BadInputError(f"strength is {strength!r}; it must be 1 to 5, or left out")
    if idempotency_key is not None:
        checked_text(idempotency_key, "the idempotency key", limit=200)
    return {
        "strength": strength,
        "comment": checked_text(comment, "the comment", may_be_blank=True),
        "all_bad": bool(all_bad),
        "idempotency_key": idempotency_key,
    }


def _save(
    db: Database,
    turn_id: int,
    person_id: int,
    ranks: Mapping[int, int],
    extras: dict[str, Any],
    revises: Ranking | None = None,
) -> Ranking:
    """The write of save and revise, inside the caller's transaction."""
    dense = dense_ranks(get_turn(db, turn_id), ranks, all_bad=extras["all_bad"])
    body = _body_sha256(turn_id, dense, extras)
    sent_before = _by_key(db, person_id, extras["idempotency_key"])
    if sent_before is not None:
        if sent_before["body_sha256"] != body:
            raise ConflictError(
                f"idempotency key {extras['idempotency_key']!r} was used for ranking "
                f"{sent_before['id']} with other content; use a new key"
            )
        return get_ranking(db, sent_before["id"])
    if db.row("SELECT 1 FROM people WHERE id = ?", [person_id]) is None:
        raise NotFoundError(f"there is no person {person_id}")
    if revises is not None:
        _require_active(revises)
    before = active_ranking(db, turn_id, person_id)
    if before is not None:
        db.connection().execute(
            "UPDATE rankings SET state = 'superseded' WHERE id = ?", [before.id]
        )
    revision_of = None if before is None else before.id
    fields = {**extras, "state": "active", "revision_of": revision_of, "created_at": now()}
    return get_ranking(db, insert_ranking(db, turn_id, person_id, dense, fields))


def insert_ranking(
    db: Database, turn_id: int, person_id: int, dense: Mapping[int, int], fields: dict[str, Any]
) -> int:
    """Write the rows of a ranking in the caller's transaction; returns its id.

    ``dense`` comes from `dense_ranks`; ``fields`` are the remaining columns but for the hash.
    """
    body = _body_sha256(turn_id, dense, fields)
    row = {"turn_id": turn_id, "person_id": person_id, **fields, "body_sha256": body}
    connection = db.connection()
    ranking_id = insert(connection, "rankings", row)
    for reply_id, rank in dense.items():
        connection.execute(
            "INSERT INTO ranking_entries (ranking_id, turn_id, reply_id, rank) VALUES (?, ?, ?, ?)",
            [ranking_id, turn_id, reply_id, rank],
        )
    return ranking_id


def _body_sha256(turn_id: int, dense: Mapping[int, int], fields: Mapping[str, Any]) -> str:
    content = [turn_id, sorted(dense.items()), fields["strength"], fields["comment"]]
    return sha256_of(to_json([*content, fields["all_bad"]]))


def _by_key(db: Database, person_id: int, key: str | None) -> dict[str, Any] | None:
    return db.row(
        "SELECT id, body_sha256 FROM rankings WHERE person_id = ? AND idempotency_key = ?",
        [person_id, key],
    )


def dense_ranks(turn: Turn, ranks: Mapping[int, int], *, all_bad: bool) -> dict[int, int]:
    """Ranks by reply id without gaps, after checking them against the turn's replies.

    Raises:
        BadInputError: they do not cover the finished replies exactly, or are not in 1 .. K.
        ConflictError: replies still stream, or none is finished.
    """
    streaming = [reply.id for reply in turn.replies if reply.state == "streaming"]
    if streaming:
        raise ConflictError(f"replies {streaming} still stream; wait for them or cut them first")
    states = {reply.id: reply.state for reply in turn.replies}
    wanted = [reply_id for reply_id, state in states.items() if state in RANKABLE]
    if not wanted:
        raise ConflictError(f"turn {turn.id} has no finished reply to rank; regenerate it")
    if all_bad and not ranks:
        return dict.fromkeys(wanted, 1)
    for reply_id in ranks:
        if reply_id not in states:
            raise BadInputError(f"reply {reply_id} is not of turn {turn.id}; rank its own replies")
        if states[reply_id] not in RANKABLE:
            raise BadInputError(f"reply {reply_id} was interrupted, so leave it out")
    missing = [reply_id for reply_id in wanted if reply_id not in ranks]
    if missing:
        raise BadInputError(f"replies {missing} have no rank; rank all {len(wanted)}")
    for reply_id, rank in ranks.items():
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= len(wanted):
            raise BadInputError(
                f"the rank of reply {reply_id} is {rank!r}; it must be 1 to {len(wanted)}"
            )
    dense = {rank: place for place, rank in enumerate(sorted(set(ranks.values())), start=1)}
    return {reply_id: dense[rank] for reply_id, rank in ranks.items()}


def get_ranking(db: Database, ranking_id: int, person_id: int | None = None) -> Ranking:
    """One ranking; NotFoundError also when it is not of ``person_id``, if given."""
    found = rankings_where(
        db, "id = ? AND (? IS NULL OR person_id = ?)", [ranking_id, person_id, person_id]
    )
    if not found:
        raise NotFoundError(f"there is no ranking {ranking_id}")
    return found[0]


def active_ranking(db: Database, turn_id: int, person_id: int) -> Ranking | None:
    """The person's ranking of the turn that counts now."""
    where = "turn_id = ? AND person_id = ? AND state = 'active'"
    return next(iter(rankings_where(db, where, [turn_id, person_id])), None)


def list_rankings(
    db: Database,
    *,
    person_id: int | None = None,
    turn_id: int | None = None,
    state: str | None = "active",
    after_id: int = 0,
    limit: int = 100,
) -> list[Ranking]:
    """Rankings with an id above ``after_id``, oldest first; state None gives all states."""
    where = (
        "id > :after AND (:person IS NULL OR person_id = :person) "
        "AND (:turn IS NULL OR turn_id = :turn) AND (:state IS NULL OR state = :state)"
    )
    parameters = {
        "after": after_id,
        "person": person_id,
        "turn": turn_id,
        "state": state,
        "limit": limit,
    }
    return rankings_where(db, where, parameters, "LIMIT :limit")


def rankings_where(
    db: Database, where: str, parameters: Parameters, tail: str = ""
) -> list[Ranking]:
    """Rankings of a condition that the code wrote, oldest first."""
    entries = (
        "SELECT json_group_array(json_array(entry.reply_id, replies.position, entry.rank)) "
        "FROM ranking_entries AS entry JOIN replies ON replies.id = entry.reply_id "
        "WHERE entry.ranking_id = rankings.id"
    )
    sql = f"SELECT *, ({entries}) AS entries FROM rankings WHERE {where} ORDER BY id {tail}"
    return [_ranking(row) for row in db.rows(sql, parameters)]


def _ranking(row: dict[str, Any]) -> Ranking:
    entries = sorted(json.loads(row["entries"]), key=lambda entry: entry[1])
    del row["entries"], row["idempotency_key"], row["body_sha256"]
    row["all_bad"] = bool(row["all_bad"])
    return Ranking(
        **row,
        ranks={reply_id: rank for reply_id, _, rank in entries},
        order=order_text({position: rank for _, position, rank in entries}),
        comparisons=comparison_count([rank for _, _, rank in entries]),
    )


def count_new(db: Database, after_ranking_id: int) -> int:
    """How many active rankings have a greater id; hidden repeats do not count."""
    sql = f"SELECT count(*) AS n FROM rankings WHERE {COUNTED} AND id > ?"
    return int(db.rows(sql, [after_ranking_id])[0]["n"])


def newest_id(db: Database) -> int:
    """The id of the newest active ranking, or 0."""
    sql = f"SELECT coalesce(max(id), 0) AS newest FROM rankings WHERE {COUNTED}"
    return int(db.rows(sql)[0]["newest"])


def ranked_turns(
    db: Database, up_to_ranking_id: int | None = None, *, after_ranking_id: int = 0
) -> list[RankedTurn]:
    """All active rankings as training examples, oldest first, those with all tied among them.

    Hidden repeats of the queue are left out.
    """
    where = f"{COUNTED} AND id > :after AND (:newest IS NULL OR id <= :newest)"
    with db.snapshot():
        parameters = {"after": after_ranking_id, "newest": up_to_ranking_id}
        rankings = rankings_where(db, where, parameters)
        return [_ranked_turn(db, ranking) for ranking in rankings]


def _ranked_turn(db: Database, ranking: Ranking) -> RankedTurn:
    turn = get_turn(db, ranking.turn_id)
    context = messages_before(db, turn.conversation_id, turn.parent_reply_id)
    replies = [reply for reply in turn.replies if reply.id in ranking.ranks]
    return RankedTurn(
        ranking_id=ranking.id,
        turn_id=turn.id,
        person_id=ranking.person_id,
        messages=(*context, Message("user", turn.text)),
        reply_ids=tuple(reply.id for reply in replies),
        replies=tuple(reply.text for reply in replies),
        finished=tuple(reply.finish_reason == "stop" for reply in replies),
        ranks=tuple(ranking.ranks[reply.id] for reply in replies),
        strength=ranking.strength,
        all_bad=ranking.all_bad,
        imported=any(reply.slot_type == IMPORTED for reply in replies),
    )
