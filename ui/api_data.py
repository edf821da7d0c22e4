"""``/api/export``: everything that people said, as a file."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from chatrlhf.loop.exchange.exports import EXPORTS, estimated_bytes
from ui.access import TheApp, ThePerson
from ui.rating_filters import whose

router = APIRouter(prefix="/api", tags=["data"])

Format = Annotated[
    Literal["jsonl", "parquet", "trl", "trl-sft"],
    Query(
        alias="format",
        description="jsonl and parquet are whole and can be imported again; trl holds the "
        "preferences and trl-sft the demonstrations as TRL reads them.",
    ),
]


@router.get("/export", response_class=StreamingResponse)
def export(
    app: TheApp,
    person: ThePerson,
    format_name: Format = "jsonl",
) -> StreamingResponse:
    """Conversations, replies, rankings, labels and demonstrations as a file, sent as it is made.

    An admin gets everybody's, others their own.
    """
    chosen = EXPORTS[format_name]
    who = whose(person)
    day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    name = f"chatrlhf-{format_name}-{day}{chosen.suffix}"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Records": str(chosen.records(app.db, who)),
    }
    parts = (part for _, part in chosen.parts(app.db, who))
    return StreamingResponse(parts, media_type=chosen.media_type, headers=headers)


@router.get("/export/size")
def export_size(app: TheApp, person: ThePerson, format_name: Format = "jsonl") -> dict[str, Any]:
    """How large an export is about to be: its records, and an estimate of its bytes."""
    chosen = EXPORTS[format_name]
    records, size, exact = estimated_bytes(chosen, app.db, whose(person))
    return {"format": format_name, "records": records, "bytes": size, "exact": exact}
