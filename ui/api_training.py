"""``/api``: health, versions, rounds, and the trainer's switch."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from chatrlhf.app import App
from chatrlhf.loop import trigger
from chatrlhf.loop.old_versions import old_versions, remove_old
from chatrlhf.loop.publish import verify_version
from chatrlhf.models.export_version import ADAPTER_FILES
from storage import runs, versions
from ui.access import IdInPath, TheApp, TheCallerIfAny, ThePerson
from ui.bodies import OldVersionsBody, RoundBody, Stage
from ui.shapes import metric_json, round_json, version_json

router = APIRouter(prefix="/api", tags=["training"])

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int, Query(ge=0, le=2**63 - 1)]


@router.get("/health")
def health(app: TheApp, caller: TheCallerIfAny) -> dict[str, Any]:
    """What runs: the model, the live version, the trainer; for strangers only whether it does."""
    found = app.health()
    return {"status": found["status"]} if caller is None else found


@router.get("/versions")
def list_versions(app: TheApp) -> list[dict[str, Any]]:
    """All adapter versions, and which is live."""
    return _versions_json(app)


@router.get("/versions/{name}")
def get_version(app: TheApp, name: str) -> dict[str, Any]:
    """One adapter version."""
    wanted = versions.get_version(app.db, name)
    return next(row for row in _versions_json(app) if row["name"] == wanted.name)


@router.post("/versions/gc")
def remove_old_versions(app: TheApp, body: OldVersionsBody | None = None) -> dict[str, Any]:
    """Remove the files of old versions; only says which, unless ``dry_run`` is false."""
    body = body or OldVersionsBody()
    found = old_versions(app.db, app.settings, body.keep)
    if not body.dry_run:
        for old in found:
            remove_old(app.db, app.settings, old)
    return {
        "removed": not body.dry_run,
        "versions": [dataclasses.asdict(old) for old in found],
        "files_bytes": sum(old.files_bytes for old in found),
    }


@router.get("/versions/{name}/export")
def export_version(app: TheApp, name: str) -> Response:
    """The policy's adapter of a version as a standard peft folder, in a ZIP file."""
    folder = verify_version(app.db, app.settings, name)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:  # weights do not compress
        for file in ADAPTER_FILES:
            archive.write(folder / file, f"{name}/{file}")
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return Response(packed.getvalue(), media_type="application/zip", headers=headers)


@router.post("/versions/rollback")
def roll_back(app: TheApp, person: ThePerson) -> dict[str, Any]:
    """Make the previous version live again."""
    return {"live_version": app.live.roll_back(person.name)}


@router.post("/versions/{name}/promote")
def promote(app: TheApp, person: ThePerson, name: str) -> dict[str, Any]:
    """Make a version live."""
    app.live.promote(name, person.name)
    return {"live_version": name}


@router.get("/rounds")
def list_rounds(app: TheApp, limit: Limit = 100) -> list[dict[str, Any]]:
    """The rounds of the trainer, newest first."""
    return [round_json(run) for run in runs.list_runs(app.db, limit)]


@router.post("/rounds")
def request_round(app: TheApp, person: ThePerson, body: RoundBody | None = None) -> dict[str, Any]:
    """Start a round now, without waiting for more rankings."""
    stages: tuple[Stage, ...] = trigger.ALL_STAGES
    if body is not None and body.stages is not None:
        stages = tuple(body.stages)
    return round_json(app.supervisor.request_round(stages, person.name))


@router.get("/rounds/{run_id}")
def get_round(app: TheApp, run_id: IdInPath) -> dict[str, Any]:
    """One round."""
    return round_json(runs.get_run(app.db, run_id))


@router.post("/rounds/{run_id}/cancel")
def cancel_round(app: TheApp, person: ThePerson, run_id: IdInPath) -> dict[str, Any]:
    """End a queued or running round; nothing of it is published."""
    runs.cancel_run(app.db, run_id, person.name)
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
    """The timeline of a round.

    ``data.sentences``, where it is there, holds the text as templates with values, which the page
    says in its reader's language.
    """
    runs.get_run(app.db, run_id)
    found = runs.list_events(app.db, run_id, after_id=after_id, limit=limit)
    return [dataclasses.asdict(event) for event in found]


@router.get("/rounds/{run_id}/samples")
def list_samples(
    app: TheApp,
    person: ThePerson,
    run_id: IdInPath,
    stage: Stage | None = None,
    limit: Limit = 100,
) -> list[dict[str, Any]]:
    """Replies that the policy gave while it trained; those to other people's chats for admins."""
    runs.get_run(app.db, run_id)
    whose = None if person.role == "admin" else person.id
    found = runs.list_samples(app.db, run_id, stage=stage, limit=limit, person_id=whose)
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
