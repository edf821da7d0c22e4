"""``/api``: health, versions, rounds, and the trainer's switch."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query

from chatrlhf.app import App
from chatrlhf.loop import trigger
from storage import runs, versions
from ui.access import IdInPath, TheApp
from ui.bodies import RoundBody, Stage
from ui.shapes import metric_json, round_json, version_json

router = APIRouter(prefix="/api", tags=["training"])

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int, Query(ge=0, le=2**63 - 1)]


@router.get("/health")
def health(app: TheApp) -> dict[str, Any]:
    """What runs: the model, the live version and the trainer."""
    return app.health()


@router.get("/versions")
def list_versions(app: TheApp) -> list[dict[str, Any]]:
    """All adapter versions, and which is live."""
    return _versions_json(app)


@router.get("/versions/{name}")
def get_version(app: TheApp, name: str) -> dict[str, Any]:
    """One adapter version."""
    wanted = versions.get_version(app.db, name)
    return next(row for row in _versions_json(app) if row["name"] == wanted.name)


@router.post("/versions/rollback")
def roll_back(app: TheApp) -> dict[str, Any]:
    """Make the previous version live again."""
    return {"live_version": app.live.roll_back(app.person.name)}


@router.post("/versions/{name}/promote")
def promote(app: TheApp, name: str) -> dict[str, Any]:
    """Make a version live."""
    app.live.promote(name, app.person.name)
    return {"live_version": name}


@router.get("/rounds")
def list_rounds(app: TheApp, limit: Limit = 100) -> list[dict[str, Any]]:
    """The rounds of the trainer, newest first."""
    return [round_json(run) for run in runs.list_runs(app.db, limit)]


@router.post("/rounds")
def request_round(app: TheApp, body: RoundBody | None = None) -> dict[str, Any]:
    """Start a round now, without waiting for more rankings."""
    stages: tuple[Stage, ...] = trigger.ALL_STAGES
    if body is not None and body.stages is not None:
        stages = tuple(body.stages)
    return round_json(app.supervisor.request_round(stages, app.person.name))


@router.get("/rounds/{run_id}")
def get_round(app: TheApp, run_id: IdInPath) -> dict[str, Any]:
    """One round."""
    return round_json(runs.get_run(app.db, run_id))


@router.post("/rounds/{run_id}/cancel")
def cancel_round(app: TheApp, run_id: IdInPath) -> dict[str, Any]:
    """End a queued or running round; nothing of it is published."""
    runs.cancel_run(app.db, run_id, app.person.name)
    app.feedback_given()
    return round_json(runs.get_run(app.db, run_id))


@router.get("/rounds/{run_id}/metrics")
def list_metrics(
    app: TheApp, run_id: IdInPath, after: After = 0, stage: Stage | None = None
) -> list[dict[str, Any]]:
    """The numbers of a round as they came; ``after`` is the last row id that is known."""
    runs.get_run(app.db, run_id)
    found = runs.list_metrics(app.db, run_id, after_rowid=after, stage=stage)
    return [metric_json(metric) for metric in found]


@router.get("/rounds/{run_id}/events")
def list_events(
    app: TheApp, run_id: IdInPath, after_id: After = 0, limit: Limit = 1000
) -> list[dict[str, Any]]:
    """The timeline of a round."""
    runs.get_run(app.db, run_id)
    found = runs.list_events(app.db, run_id, after_id=after_id, limit=limit)
    return [dataclasses.asdict(event) for event in found]


@router.get("/rounds/{run_id}/samples")
def list_samples(
    app: TheApp, run_id: IdInPath, stage: Stage | None = None, limit: Limit = 100
) -> list[dict[str, Any]]:
    """Replies that the policy gave while it trained."""
    runs.get_run(app.db, run_id)
    found = runs.list_samples(app.db, run_id, stage=stage, limit=limit)
    return [dataclasses.asdict(sample) for sample in found]


@router.post("/trainer/pause")
def pause_trainer(app: TheApp) -> dict[str, Any]:
    """Start no further rounds."""
    app.supervisor.pause()
    return {"trainer": app.supervisor.status()}


@router.post("/trainer/resume")
def resume_trainer(app: TheApp) -> dict[str, Any]:
    """Start rounds again."""
    app.supervisor.resume()
    return {"trainer": app.supervisor.status()}


def _versions_json(app: App) -> list[dict[str, Any]]:
    live = versions.get_alias(app.db, "live")
    previous = versions.get_alias(app.db, "previous")
    return [
        version_json(row, live=live, previous=previous) for row in versions.list_versions(app.db)
    ]
