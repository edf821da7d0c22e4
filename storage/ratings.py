"""Finding ratings: rankings and demonstrations by who, when, what and which words.

Lists are paged by id, so that a rating that comes or goes meanwhile neither repeats nor hides
another. What is found first is the newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage.database import Database
from storage.demonstrations import demonstrations_where
from storage.rankings import COUNTED, rankings_where
from storage.records import Demonstration, Ranking
from storage.search_terms import search_terms

_EXCERPT = 400


@dataclass(frozen=True)
class RatingFilter:
    """Which ratings are wanted; None and empty ask for nothing in particular.

    Times are those of the rows, ISO 8601 in UTC: ``since`` is included, ``until`` is not.
    ``label`` is a label that the rater gave one of the replies, ``version`` one that wrote one.
    """

    person_id: int | None = None
    conversation_id: int | None = None
    turn_id: int | None = None
    since: str | None = None
    until: str | None = None
    all_bad: bool | None = None
    commented: bool | None = None
    label: str | None = None
    version: str | None = None
    words: str = ""


@dataclass(frozen=True)
class FoundRanking:
    """A ranking with what a list shows of it; ``prompt`` and ``best`` are the texts' beginnings.

    ``best`` is the reply ranked first; ``labels`` are those that the rater gave, each once.
    """

    ranking: Ranking
    person: str
    conversation_id: int
    prompt: str
    best: str
    versions: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class FoundDemonstration:
    """A demonstration with who wrote it and, where a turn holds it, the conversation."""

    demonstration: Demonstration
    person: str
    conversation_id: int | None


def find_rankings(
    db: Database,
    wanted: RatingFilter,
    *,
    before_id: int | None = None,
    after_id: int | None = None,
    limit: int = 50,
) -> list[FoundRanking]:
    """Active rankings below ``before_id``, newest first; with ``after_id``, above it, oldest first.

    Raises:
        BadInputError: the words cannot be searched for.
    """
    where, values = _where_rankings(wanted)
    with db.snapshot():
        ids = _page(db, "rankings", where, values, before_id, after_id, limit)
        found = {row.id: row for row in rankings_where(db, _among("rankings.id", ids), ids)}
        more = {row["id"]: row for row in db.rows(_DETAILS.format(among=_among("r.id", ids)), ids)}
    return [_found(found[one], more[one]) for one in ids]


def count_rankings(db: Database, wanted: RatingFilter) -> int:
    """How many active rankings there are of a filter."""
    where, values = _where_rankings(wanted)
    return int(db.rows(f"SELECT count(*) AS n FROM rankings WHERE {where}", values)[0]["n"])


def find_demonstrations(
    db: Database,
    wanted: RatingFilter,
    *,
    before_id: int | None = None,
    after_id: int | None = None,
    limit: int = 50,
) -> list[FoundDemonstration]:
    """Demonstrations, as `find_rankings`; what only rankings have is not filtered by."""
    where, values = _where_demonstrations(wanted)
    with db.snapshot():
        ids = _page(db, "demonstrations", where, values, before_id, after_id, limit)
        among = _among("demonstrations.id", ids)
        found = {row.id: row for row in demonstrations_where(db, among, ids)}
        sql = (
            "SELECT demonstrations.id, people.name AS person, turns.conversation_id "
            "FROM demonstrations JOIN people ON people.id = demonstrations.person_id "
            f"LEFT JOIN turns ON turns.id = demonstrations.turn_id WHERE {among}"
        )
        more = {row["id"]: row for row in db.rows(sql, ids)}
    return [
        FoundDemonstration(found[one], more[one]["person"], more[one]["conversation_id"])
        for one in ids
    ]


def count_demonstrations(db: Database, wanted: RatingFilter) -> int:
    """How many demonstrations there are of a filter."""
    where, values = _where_demonstrations(wanted)
    return int(db.rows(f"SELECT count(*) AS n FROM demonstrations WHERE {where}", values)[0]["n"])


def filter_choices(db: Database, person_id: int | None = None) -> dict[str, list[str]]:
    """What ratings can be filtered by: ``people``, ``labels``, ``versions``, each by name.

    With ``person_id``, only that person and the labels that the person gave.
    """
    people = db.rows(
        "SELECT name FROM people WHERE (:person IS NULL OR id = :person) AND ("
        "EXISTS (SELECT 1 FROM rankings WHERE person_id = people.id) OR "
        "EXISTS (SELECT 1 FROM demonstrations WHERE person_id = people.id)) ORDER BY name",
        {"person": person_id},
    )
    labels = db.rows(
        "SELECT DISTINCT label FROM labels WHERE value = 1 "
        "AND (:person IS NULL OR person_id = :person) ORDER BY label",
        {"person": person_id},
    )
    versions = db.rows(_VERSIONS)
    return {
        "people": [row["name"] for row in people],
        "labels": [row["label"] for row in labels],
        "versions": [row["version"] for row in versions],
    }


# From one name to the next by the index, where DISTINCT would read all replies.
_VERSIONS = """
    WITH RECURSIVE names (version) AS (
        SELECT min(version) FROM replies WHERE version <> ''
        UNION ALL
        SELECT (SELECT min(replies.version) FROM replies WHERE replies.version > names.version)
        FROM names WHERE names.version IS NOT NULL
    )
    SELECT version FROM names WHERE version IS NOT NULL
    ORDER BY version GLOB 'v[0-9]*', length(version), version
"""

_DETAILS = f"""
    SELECT r.id, people.name AS person, turns.conversation_id,
        substr(turns.text, 1, {_EXCERPT}) AS prompt,
        (SELECT substr(replies.text, 1, {_EXCERPT}) FROM ranking_entries AS entry
            JOIN replies ON replies.id = entry.reply_id
            WHERE entry.ranking_id = r.id ORDER BY entry.rank, replies.position LIMIT 1) AS best,
        (SELECT group_concat(version, char(10)) FROM (
            SELECT DISTINCT version FROM replies WHERE replies.turn_id = r.turn_id
            ORDER BY length(version), version)) AS versions,
        (SELECT group_concat(label, char(10)) FROM (
            SELECT DISTINCT label FROM labels JOIN replies ON replies.id = labels.reply_id
            WHERE replies.turn_id = r.turn_id AND labels.person_id = r.person_id
            AND labels.value = 1 ORDER BY label)) AS labels
    FROM rankings AS r JOIN people ON people.id = r.person_id JOIN turns ON turns.id = r.turn_id
    WHERE {{among}}
"""


def _found(ranking: Ranking, row: dict[str, Any]) -> FoundRanking:
    return FoundRanking(
        ranking,
        row["person"],
        row["conversation_id"],
        row["prompt"],
        row["best"] or "",
        tuple((row["versions"] or "").split("\n")) if row["versions"] else (),
        tuple((row["labels"] or "").split("\n")) if row["labels"] else (),
    )


def _among(column: str, ids: list[int]) -> str:
    return f"{column} IN ({', '.join('?' * len(ids))})"


def _page(
    db: Database,
    table: str,
    where: str,
    values: list[Any],
    before_id: int | None,
    after_id: int | None,
    limit: int,
) -> list[int]:
    order = "DESC" if after_id is None else "ASC"
    for bound, sign in ((before_id, "<"), (after_id, ">")):
        if bound is not None:
            where, values = f"{where} AND {table}.id {sign} ?", [*values, bound]
    sql = f"SELECT id FROM {table} WHERE {where} ORDER BY {table}.id {order} LIMIT ?"
    return [int(row["id"]) for row in db.rows(sql, [*values, limit])]


def _where_rankings(wanted: RatingFilter) -> tuple[str, list[Any]]:
    parts: list[tuple[str, list[Any]]] = [(COUNTED, [])]
    parts += _common(wanted, "rankings")
    if wanted.all_bad is not None:
        parts.append((f"all_bad = {int(wanted.all_bad)}", []))
    if wanted.commented is not None:
        parts.append((f"comment {'<>' if wanted.commented else '='} ''", []))
    if wanted.label is not None:
        parts.append((_LABELLED, [wanted.label]))
    if wanted.version is not None:
        parts.append(
            ("turn_id IN (SELECT turn_id FROM replies WHERE version = ?)", [wanted.version])
        )
    for term in search_terms(wanted.words) if wanted.words else ():
        parts.append((_SAYS_RANKING, [term] * 3))
    return _joined(parts)


_LABELLED = """
    EXISTS (SELECT 1 FROM labels JOIN replies ON replies.id = labels.reply_id
        WHERE replies.turn_id = rankings.turn_id AND labels.person_id = rankings.person_id
        AND labels.label = ? AND labels.value = 1)
"""
_SAYS_RANKING = """(
    turn_id IN (SELECT rowid FROM words_of_turns WHERE words_of_turns MATCH ?)
    OR turn_id IN (SELECT replies.turn_id FROM words_of_replies
        JOIN replies ON replies.id = words_of_replies.rowid WHERE words_of_replies MATCH ?)
    OR rankings.id IN (SELECT rowid FROM words_of_rankings WHERE words_of_rankings MATCH ?))
"""
_SAYS_DEMONSTRATION = """(
    demonstrations.id IN
        (SELECT rowid FROM words_of_demonstrations WHERE words_of_demonstrations MATCH ?)
    OR turn_id IN (SELECT rowid FROM words_of_turns WHERE words_of_turns MATCH ?))
"""


def _where_demonstrations(wanted: RatingFilter) -> tuple[str, list[Any]]:
    parts = [("1", []), *_common(wanted, "demonstrations")]
    for term in search_terms(wanted.words) if wanted.words else ():
        parts.append((_SAYS_DEMONSTRATION, [term] * 2))
    return _joined(parts)


def _common(wanted: RatingFilter, table: str) -> list[tuple[str, list[Any]]]:
    parts: list[tuple[str, list[Any]]] = []
    for sql, value in (
        (f"{table}.person_id = ?", wanted.person_id),
        (f"{table}.turn_id = ?", wanted.turn_id),
        (f"{table}.created_at >= ?", wanted.since),
        (f"{table}.created_at < ?", wanted.until),
        (
            f"{table}.turn_id IN (SELECT id FROM turns WHERE conversation_id = ?)",
            wanted.conversation_id,
        ),
    ):
        if value is not None:
            parts.append((sql, [value]))
    return parts


def _joined(parts: list[tuple[str, list[Any]]]) -> tuple[str, list[Any]]:
    return " AND ".join(sql for sql, _ in parts), [value for _, some in parts for value in some]
