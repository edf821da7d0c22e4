"""What a run reports while it works: metrics, samples, events."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.database import Database, insert
from storage.records import Event, Metric, Sample
from storage.values import checked_text, generated_text, now, to_json

_KINDS = ("info", "gate_passed", "gate_failed", "error")


def require_fence(db: Database, run_id: int, fence: int) -> None:
    """Raise ConflictError unless the run is running under this fence."""
    row = db.row("SELECT state, fence FROM runs WHERE id = ?", [run_id])
    if row is None:
        raise NotFoundError(f"there is no round {run_id}")
    if row["state"] != "running" or row["fence"] != fence:
        raise ConflictError(
            f"round {run_id} is {row['state']} under fence {row['fence']}, so a worker with "
            f"fence {fence} may not write; stop this worker"
        )


def add_metrics(db: Database, run_id: int, fence: int, metrics: Sequence[Metric]) -> None:
    """Store metrics; a resumed run's value of the same stage, step and name replaces the first.

    Raises:
        ConflictError: the fence is stale.
    """
    with db.transaction() as connection:
        require_fence(db, run_id, fence)
        for metric in metrics:
            connection.execute(
                "INSERT OR REPLACE INTO run_metrics (run_id, stage, step, name, value) "
                "VALUES (?, ?, ?, ?, ?)",
                [run_id, metric.stage, metric.step, metric.name, float(metric.value)],
            )


def list_metrics(
    db: Database, run_id: int, after_rowid: int = 0, stage: str | None = None
) -> list[Metric]:
    """Metrics with an ``id`` above ``after_rowid``, in the order in which they came."""
    rows = db.rows(
        "SELECT stage, step, name, value, id FROM run_metrics "
        "WHERE run_id = :run AND id > :after AND (:stage IS NULL OR stage = :stage) ORDER BY id",
        {"run": run_id, "after": after_rowid, "stage": stage},
    )
    return [
        Metric(**{**row, "value": math.nan if row["value"] is None else row["value"]})
        for row in rows
    ]


def add_samples(db: Database, run_id: int, fence: int, samples: Sequence[Sample]) -> None:
    """Store samples. Raises ConflictError when the fence is stale."""
    with db.transaction() as connection:
        require_fence(db, run_id, fence)
        for sample in samples:
            connection.execute(
                "INSERT INTO run_samples (run_id, stage, step, prompt, reply, score, terms) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    run_id,
                    sample.stage,
                    sample.step,
                    generated_text(sample.prompt),
                    generated_text(sample.reply),
                    sample.score,
                    to_json(sample.terms),
                ],
            )


def list_samples(
    db: Database,
    run_id: int,
    stage: str | None = None,
    limit: int = 100,
    person_id: int | None = None,
) -> list[Sample]:
    """The newest samples of the run, oldest of them first.

    With ``person_id``, only those whose prompt is of the pool or of the person's own chats.
    """
    rows = db.rows(
        "SELECT stage, step, prompt, reply, score, id, terms FROM run_samples "
        "WHERE run_id = :run AND (:stage IS NULL OR stage = :stage) "
        "AND (:person IS NULL OR prompt IN (SELECT text FROM prompts) OR prompt IN ("
        "SELECT turns.text FROM turns JOIN conversations ON conversations.id = conversation_id "
        "WHERE person_id = :person)) ORDER BY id DESC LIMIT :limit",
        {"run": run_id, "stage": stage, "limit": limit, "person": person_id},
    )
    return [Sample(**{**row, "terms": json.loads(row["terms"])}) for row in reversed(rows)]


def add_event(
    db: Database, run_id: int, kind: str, text: str, data: dict[str, Any] | None = None
) -> Event:
    """Add a sentence to the run's timeline; needs no fence, as the supervisor writes too."""
    if kind not in _KINDS:
        raise BadInputError(f"event kind {kind!r} is none of {', '.join(_KINDS)}")
    checked_text(text, "the event")
    with db.transaction() as connection:
        if db.row("SELECT 1 FROM runs WHERE id = ?", [run_id]) is None:
            raise NotFoundError(f"there is no round {run_id}")
        row = {
            "run_id": run_id,
            "kind": kind,
            "text": text,
            "data": to_json(data or {}),
            "created_at": now(),
        }
        new_id = insert(connection, "run_events", row)
    return Event(id=new_id, **{**row, "data": json.loads(str(row["data"]))})


def list_events(
    db: Database, run_id: int | None = None, after_id: int = 0, limit: int = 100
) -> list[Event]:
    """The newest events with an id above ``after_id``, oldest of them first."""
    rows = db.rows(
        "SELECT * FROM run_events WHERE id > :after AND (:run IS NULL OR run_id = :run) "
        "ORDER BY id DESC LIMIT :limit",
        {"run": run_id, "after": after_id, "limit": limit},
    )
    return [Event(**{**row, "data": json.loads(row["data"])}) for row in reversed(rows)]
