"""The trainer's state as its rows tell it; works without a supervisor too."""

from __future__ import annotations

from typing import Any

from chatrlhf.loop import trigger
from chatrlhf.settings import Settings
from storage import runs
from storage.database import Database

CRASHES_KEY = "trainer_crashes"
_STATE_KEY = "trainer"


def crashes_of(db: Database, run_id: int) -> int:
    """How often the trainer died in the middle of this round."""
    known = dict(runs.get_state(db, CRASHES_KEY) or {})
    return int(known["crashes"]) if known.get("run_id") == run_id else 0


def is_paused(db: Database) -> bool:
    """Whether a person has paused the trainer."""
    return bool((runs.get_state(db, _STATE_KEY) or {}).get("paused", False))


def set_paused(db: Database, *, paused: bool) -> None:
    """Pause or resume the trainer; its supervisor sees it at its next look."""
    runs.set_state(db, _STATE_KEY, {"paused": paused})


def trainer_status(settings: Settings, db: Database) -> dict[str, Any]:
    """What ``/api/health`` shows of the trainer.

    ``state`` is idle, queued, running, paused or failed (the newest round failed).
    """
    current = runs.current_run(db)
    newest = next(iter(runs.list_runs(db, 1)), None)
    shown = current or newest
    state = "idle"
    if current is not None and current.state == "running":
        state = "running"
    elif is_paused(db):
        state = "paused"
    elif current is not None:
        state = "queued"
    elif newest is not None and newest.state == "failed":
        state = "failed"
    busy = current is not None
    return {
        "state": state,
        "next_refit_in": trigger.next_refit_in(settings, db),
        "stage": shown.stage if shown and busy else None,
        "step": shown.step if shown and busy else 0,
        "steps": shown.steps if shown and busy else 0,
        "eta_seconds": shown.eta_seconds if shown and busy else None,
        "run_id": shown.id if shown else None,
        "message": shown.message if shown else "",
    }
