"""Rounds of the trainer: queue, claim, fence, heartbeat, and how each one ended.

At most one run is queued or running. Each claim raises the run's fence; a worker that was taken
for dead holds a smaller one, and all its writes are refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.database import Database, insert
from storage.people import append_audit, find_person
from storage.records import Run, RunState, Stage
from storage.run_log import (
    add_event,
    add_metrics,
    add_samples,
    list_events,
    list_metrics,
    list_samples,
    require_fence,
)
from storage.values import checked_integer, checked_text, now, to_json

__all__ = [
    "add_event",
    "add_metrics",
    "add_samples",
    "cancel_run",
    "claim_run",
    "current_run",
    "enqueue_run",
    "fail_run",
    "finish_run",
    "get_run",
    "get_state",
    "heartbeat",
    "last_trained_ranking_id",
    "list_events",
    "list_metrics",
    "list_runs",
    "list_samples",
    "release_run",
    "require_fence",
    "set_dataset",
    "set_state",
]

_STAGES = get_args(Stage)
_ENDED = ("succeeded", "skipped", "failed", "cancelled")


def enqueue_run(
    db: Database,
    stages: Sequence[Stage],
    requested_by: str,
    settings: dict[str, Any],
    last_ranking_id: int,
) -> Run:
    """Ask for a round on all rankings up to ``last_ranking_id``.

    Raises:
        BadInputError: stages are unknown, repeated or none.
        ConflictError: another round is queued or running.
    """
    if not stages or len(set(stages)) != len(stages) or any(name not in _STAGES for name in stages):
        raise BadInputError(f"stages are {list(stages)}; choose of {', '.join(_STAGES)}, each once")
    checked_text(requested_by, "the name of who asks", limit=100)
    checked_integer(last_ranking_id, "the last ranking id")
    with db.transaction() as connection:
        busy = current_run(db)
        if busy is not None:
            raise ConflictError(f"round {busy.id} is {busy.state}; wait for it or cancel it")
        row = {
            "state": "queued",
            "stages": to_json(list(stages)),
            "requested_by": requested_by,
            "last_ranking_id": last_ranking_id,
            "settings": to_json(settings),
            "created_at": now(),
        }
        new_id = insert(connection, "runs", row)
    return get_run(db, new_id)


def claim_run(db: Database, owner: str, pid: int, boot_id: str) -> Run | None:
    """Take the queued run for this worker, with a new fence; None when there is none."""
    with db.transaction():
        row = db.row(
            "UPDATE runs SET state = 'running', owner = ?, pid = ?, boot_id = ?, "
            "fence = fence + 1, attempts = attempts + 1, heartbeat = heartbeat + 1, "
            "message = '', eta_seconds = NULL, started_at = coalesce(started_at, ?) "
            "WHERE id = (SELECT id FROM runs WHERE state = 'queued' ORDER BY id LIMIT 1) "
            "AND state = 'queued' RETURNING *",
            [owner, pid, boot_id, now()],
        )
    return None if row is None else _run(row)


def heartbeat(
    db: Database,
    run_id: int,
    fence: int,
    *,
    stage: str | None,
    step: int,
    steps: int,
    eta_seconds: float | None,
    message: str,
) -> bool:
    """Say that the worker lives and how far it is; False: stop, the run was taken or cancelled."""
    with db.transaction() as connection:
        cursor = connection.execute(
            "UPDATE runs SET heartbeat = heartbeat + 1, stage = ?, step = ?, steps = ?, "
            "eta_seconds = ?, message = ? WHERE id = ? AND fence = ? AND state = 'running'",
            [stage, step, steps, eta_seconds, message, run_id, fence],
        )
        return int(cursor.rowcount) == 1


def set_dataset(
    db: Database, run_id: int, fence: int, dataset_hash: str, last_ranking_id: int
) -> Run:
    """Store what the run trains on. Raises ConflictError when the fence is stale."""
    with db.transaction() as connection:
        require_fence(db, run_id, fence)
        connection.execute(
            "UPDATE runs SET dataset_hash = ?, last_ranking_id = ? WHERE id = ?",
            [dataset_hash, last_ranking_id, run_id],
        )
    return get_run(db, run_id)


def finish_run(
    db: Database,
    run_id: int,
    fence: int,
    state: RunState,
    message: str,
    result_version: str | None = None,
) -> Run:
    """End the run. Raises ConflictError when the fence is stale, NotFoundError (version)."""
    if state not in _ENDED:
        raise BadInputError(f"a round cannot end as {state!r}; it ends {', '.join(_ENDED)}")
    with db.transaction():
        require_fence(db, run_id, fence)
        if result_version is not None and not db.row(
            "SELECT 1 FROM versions WHERE name = ?", [result_version]
        ):
            raise NotFoundError(f"there is no version {result_version!r}")
        return _end(db, run_id, state, message, result_version)


def release_run(db: Database, run_id: int, message: str) -> Run:
    """Put a run whose worker has died back in the queue, to be resumed.

    Its fence stays; the next claim raises it, and until then nobody holds the run.
    """
    with db.transaction() as connection:
        _require_state(get_run(db, run_id), "running")
        connection.execute(
            "UPDATE runs SET state = 'queued', owner = NULL, pid = NULL, boot_id = NULL, "
            "eta_seconds = NULL, message = ? WHERE id = ?",
            [message, run_id],
        )
    return get_run(db, run_id)


def fail_run(db: Database, run_id: int, message: str) -> Run:
    """Give the run up, whoever holds it."""
    with db.transaction():
        _require_state(get_run(db, run_id), "queued", "running")
        return _end(db, run_id, "failed", message, None)


def cancel_run(db: Database, run_id: int, person: str) -> Run:
    """Cancel the run for the person of that name; the worker learns it from its next heartbeat."""
    with db.transaction() as connection:
        _require_state(get_run(db, run_id), "queued", "running")
        known = find_person(db, person)
        detail = {"by": person, "round": run_id}
        append_audit(connection, None if known is None else known.id, "cancel_round", detail)
        return _end(db, run_id, "cancelled", f"Cancelled by {person}.", None)


def _require_state(run: Run, *states: RunState) -> None:
    if run.state not in states:
        raise ConflictError(f"round {run.id} is {run.state}, not {' or '.join(states)}")


def _end(db: Database, run_id: int, state: RunState, message: str, version: str | None) -> Run:
    db.connection().execute(
        "UPDATE runs SET state = ?, message = ?, result_version = coalesce(?, result_version), "
        "eta_seconds = NULL, ended_at = ? WHERE id = ?",
        [state, message, version, now(), run_id],
    )
    return get_run(db, run_id)


def get_run(db: Database, run_id: int) -> Run:
    """One run, or NotFoundError."""
    row = db.row("SELECT * FROM runs WHERE id = ?", [run_id])
    if row is None:
        raise NotFoundError(f"there is no round {run_id}")
    return _run(row)


def list_runs(db: Database, limit: int = 20) -> list[Run]:
    """The newest runs, newest first."""
    return [_run(row) for row in db.rows("SELECT * FROM runs ORDER BY id DESC LIMIT ?", [limit])]


def current_run(db: Database) -> Run | None:
    """The run that is queued or running."""
    row = db.row("SELECT * FROM runs WHERE state IN ('queued', 'running')")
    return None if row is None else _run(row)


def last_trained_ranking_id(db: Database) -> int:
    """Up to which ranking rounds have looked at all rankings, or 0.

    Rounds that found nothing to train on (skipped) count too, or they would be asked for again
    at once.
    """
    sql = (
        "SELECT coalesce(max(last_ranking_id), 0) AS last FROM runs "
        "WHERE state IN ('succeeded', 'skipped')"
    )
    return int(db.rows(sql)[0]["last"])


def _run(row: dict[str, Any]) -> Run:
    stages = tuple(json.loads(row["stages"]))
    return Run(**{**row, "stages": stages, "settings": json.loads(row["settings"])})


def get_state(db: Database, key: str, default: Any = None) -> Any:
    """A small value kept under ``key`` (such as ``trainer.paused``), or the default."""
    row = db.row("SELECT value FROM state WHERE key = ?", [key])
    return default if row is None else json.loads(row["value"])


def set_state(db: Database, key: str, value: Any) -> None:
    """Keep a value that JSON can hold under ``key``."""
    checked_text(key, "the key", limit=100)
    with db.transaction() as connection:
        connection.execute(
            "INSERT INTO state (key, value, changed_at) VALUES (?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
            "changed_at = excluded.changed_at",
            [key, to_json(value), now()],
        )
