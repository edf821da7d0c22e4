"""Everything that people said, out of the database: whole, or as TRL and `datasets` read it.

    jsonl     whole and lossless: one conversation, or one demonstration of no turn, a line
    parquet   the same records as rows
    trl       TRL's preference format: a line for each pair that a ranking orders
    trl-sft   TRL's prompt-completion format: a line for each demonstration

All are made as they are written, record by record. The TRL formats are conversational: ``prompt``,
``chosen``, ``rejected`` and ``completion`` are lists of messages.
"""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chatrlhf.loop.exchange.own_format import arrow_schema, as_arrow_row, as_line
from chatrlhf.loop.opinions import orders
from storage import demonstrations, rankings
from storage.archive import Archived, archive, archive_size
from storage.database import Database
from storage.records import Message, RankedTurn

_ROWS_IN_A_GROUP = 200
_ESTIMATE_SECONDS = 0.15


@dataclass(frozen=True)
class Export:
    """A format of export: ``records`` counts what is about to come, ``parts`` gives its bytes.

    Each part ends with a whole record, and comes with how many records it holds.
    """

    name: str
    suffix: str
    media_type: str
    records: Callable[[Database, int | None], int]
    parts: Callable[[Database, int | None], Iterator[tuple[int, bytes]]]


def estimated_bytes(export: Export, db: Database, person_id: int | None) -> tuple[int, int, bool]:
    """Records of an export, its bytes as far as its first records tell, and whether that is all.

    Takes about `_ESTIMATE_SECONDS` at most.
    """
    total = export.records(db, person_id)
    seen = size = 0
    end = time.monotonic() + _ESTIMATE_SECONDS
    for records, part in export.parts(db, person_id):
        seen += records
        size += len(part)
        if time.monotonic() > end:
            break
    else:
        return seen, size, True
    return total, round(size / max(seen, 1) * max(total, seen)), False


def preference_rows(turn: RankedTurn) -> Iterator[dict[str, Any]]:
    """TRL's preference rows of a ranking: the better and the worse reply of each untied pair."""
    if not orders(turn):
        return
    replies = sorted(zip(turn.ranks, turn.replies, strict=True), key=lambda one: one[0])
    for (better_rank, better), (worse_rank, worse) in itertools.combinations(replies, 2):
        if better_rank != worse_rank:
            yield {
                "prompt": _plain(turn.messages),
                "chosen": _answer(better),
                "rejected": _answer(worse),
            }


def completion_row(messages: Sequence[Message], text: str) -> dict[str, Any]:
    """TRL's prompt-completion row of a demonstration."""
    return {"prompt": _plain(messages), "completion": _answer(text)}


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _jsonl(db: Database, person_id: int | None) -> Iterator[tuple[int, bytes]]:
    for record in archive(db, person_id):
        yield 1, as_line(record).encode()


def _parquet(db: Database, person_id: int | None) -> Iterator[tuple[int, bytes]]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = arrow_schema()
    sink = _Sink()
    with ParquetWriter(sink, schema, compression="zstd") as writer:
        for records in _batches(archive(db, person_id)):
            rows = [as_arrow_row(record) for record in records]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
            yield len(rows), sink.taken()
    yield 0, sink.taken()


def _batches(records: Iterator[Archived]) -> Iterator[list[Archived]]:
    while batch := list(itertools.islice(records, _ROWS_IN_A_GROUP)):
        yield batch


class _Sink(io.RawIOBase):
    """A file that is written once, front to back, and handed on in parts."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """How many bytes were written."""
        return self._size

    def write(self, data: Any) -> int:
        """Keep the bytes until they are taken."""
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def taken(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _preferences(db: Database, person_id: int | None) -> Iterator[tuple[int, bytes]]:
    for ranking_id in _ranking_ids(db, person_id):
        for turn in rankings.ranked_turns(db, ranking_id, after_ranking_id=ranking_id - 1):
            yield 1, b"".join(_line(row) for row in preference_rows(turn))


def _completions(db: Database, person_id: int | None) -> Iterator[tuple[int, bytes]]:
    for one in demonstrations.list_demonstrations(db):
        if person_id in (None, one.person_id):
            yield 1, _line(completion_row(one.messages, one.text))


def _ranking_ids(db: Database, person_id: int | None) -> list[int]:
    sql = (
        f"SELECT id FROM rankings WHERE {rankings.COUNTED} "
        "AND (:person IS NULL OR person_id = :person) ORDER BY id"
    )
    return [int(row["id"]) for row in db.rows(sql, {"person": person_id})]


def _demonstration_count(db: Database, person_id: int | None) -> int:
    sql = "SELECT count(*) AS n FROM demonstrations WHERE :person IS NULL OR person_id = :person"
    return int(db.rows(sql, {"person": person_id})[0]["n"])


_LINES = "application/jsonl"
EXPORTS = {
    one.name: one
    for one in (
        Export("jsonl", ".jsonl", _LINES, archive_size, _jsonl),
        Export("parquet", ".parquet", "application/vnd.apache.parquet", archive_size, _parquet),
        Export("trl", ".jsonl", _LINES, lambda *who: len(_ranking_ids(*who)), _preferences),
        Export("trl-sft", ".jsonl", _LINES, _demonstration_count, _completions),
    )
}
