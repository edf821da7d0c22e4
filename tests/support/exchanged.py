"""Import and export of ratings, in memory."""

from __future__ import annotations

import io
import json
from typing import Any

from chatrlhf.loop.exchange.exports import EXPORTS
from chatrlhf.loop.exchange.imports import ImportReport, import_records
from storage.database import Database
from storage.people import ensure_local_person
from storage.records import Person


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def load(db: Database, data: bytes | list[Any], who: Person | None = None, **how) -> ImportReport:
    payload = data if isinstance(data, bytes) else lines(*data)
    return import_records(db, io.BytesIO(payload), who or ensure_local_person(db), **how)


def dump(db: Database, name: str = "jsonl", person_id: int | None = None) -> bytes:
    return b"".join(part for _, part in EXPORTS[name].parts(db, person_id))


def exported(db: Database, name: str = "jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in dump(db, name).decode().split("\n") if line]
