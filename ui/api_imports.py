"""``/api/import``: ratings in from a file, and imports taken back."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import UploadFile

from chatrlhf.app import App
from chatrlhf.errors import BadInputError, ChatRLHFError
from chatrlhf.loop.exchange.imports import ImportReport, import_records, import_steps
from storage import imports
from storage.records import Person
from ui.access import IdInPath, TheApp, ThePerson
from ui.rating_filters import Limit, whose
from ui.shapes import import_json
from ui.sse import event_stream, event_text

router = APIRouter(prefix="/api", tags=["data"])

_FORM = "multipart/form-data"


@router.post(
    "/import",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                _FORM: {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "string", "format": "binary"}},
                    }
                },
            },
        }
    },
)
async def import_file(
    app: TheApp,
    person: ThePerson,
    request: Request,
    *,
    mine: Annotated[
        bool, Query(description="All ratings of the file are your own, whoever gave them.")
    ] = False,
    name: Annotated[
        str, Query(max_length=300, description="Of the file, to tell imports apart.")
    ] = "",
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Import a file, sent as the body or as the field ``file`` of a form.

    Taken are this program's own export, hh-rlhf, TRL, and exports of Argilla, Label Studio and
    Open WebUI; JSON Lines, JSON or Parquet, also gzipped. The answer counts what was new, what was
    here already, and tells each line that was refused; with ``Accept: text/event-stream`` it comes
    as ``import.progress`` events and one ``import.done``.
    """
    data, file_name = await _uploaded(request)
    file, name = io.BytesIO(data), name or file_name
    if "text/event-stream" in accept:
        return event_stream(_events(app, person, file, name, mine=mine))
    report = await run_in_threadpool(import_records, app.db, file, person, mine=mine, name=name)
    _tell_trainer(app, report)
    return JSONResponse(report.as_json())


@router.get("/imports")
def list_imports(app: TheApp, person: ThePerson, limit: Limit = 100) -> list[dict[str, Any]]:
    """Imports, newest first: one's own, for an admin everybody's."""
    return [import_json(one) for one in imports.list_imports(app.db, whose(person), limit)]


@router.post("/imports/{import_id}/undo")
def undo_import(app: TheApp, person: ThePerson, import_id: IdInPath) -> dict[str, Any]:
    """Take an import back: all rows that it wrote, and what people made of them since.

    Versions that were trained on them are marked.
    """
    for _ in imports.undo_import(app.db, import_id, whose(person), by=person.id):
        pass
    return import_json(imports.get_import(app.db, import_id))


async def _uploaded(request: Request) -> tuple[bytes, str]:
    """The bytes, and the name of the file where a form tells it."""
    if not request.headers.get("content-type", "").startswith(_FORM):
        return await request.body(), ""
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise BadInputError("The form has no file. Send the file as the field named file.")
        return await file.read(), (file.filename or "")[:300]


async def _events(
    app: App, person: Person, file: io.BytesIO, name: str, *, mine: bool
) -> AsyncIterator[str]:
    steps: Iterator[ImportReport] = import_steps(app.db, file, person, mine=mine, name=name)
    report = ImportReport()
    try:
        async for report in iterate_in_threadpool(steps):
            yield event_text("import.progress", {**report.as_json(), "errors": []})
    except ChatRLHFError as error:
        yield event_text("error", {"error": {"code": error.code, "message": str(error)}})
        return
    finally:
        _tell_trainer(app, report)
    yield event_text("import.done", report.as_json())


def _tell_trainer(app: App, report: ImportReport) -> None:
    if report.added:
        app.feedback_given()
