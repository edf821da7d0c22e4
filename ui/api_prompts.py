"""``/api/prompts``: the pool of prompts, written by hand, by templates or from files."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from chatrlhf.app import App
from chatrlhf.errors import ChatRLHFError
from chatrlhf.loop.exchange.prompt_files import (
    Kind,
    PromptReport,
    import_steps,
    kind_of,
    read_prompts,
)
from chatrlhf.loop.task_templates import TEMPLATES, fill_template, find_template
from storage import prompts, queue_items
from storage.records import Prompt
from ui.access import IdInPath, TheApp, ThePerson
from ui.bodies import PromptBody, PromptChangeBody, PromptsBody
from ui.sse import event_stream, event_text

router = APIRouter(prefix="/api/prompts", tags=["prompts"])

PoolLimit = Annotated[int, Query(ge=1, le=100_000, description="How many at most.")]
After = Annotated[
    int,
    Query(ge=0, le=2**63 - 1, description="Only prompts with a greater id: the last one known."),
]
Tag = Annotated[str, Query(min_length=1, max_length=40)]


@router.get("", response_description="Prompts, oldest first, and how far each is rated.")
def list_prompts(
    app: TheApp,
    split: Annotated[
        Literal["train", "held_out"] | None,
        Query(description="Only those for training, or those held out for evaluation."),
    ] = None,
    limit: PoolLimit = 10_000,
    tag: Annotated[Tag | None, Query(description="Only prompts that have this tag.")] = None,
    containing: Annotated[str, Query(max_length=200, description="Only with this text.")] = "",
    after_id: After = 0,
) -> list[dict[str, Any]]:
    """The pool of prompts.

    ``ratings`` counts the people who rated the replies to it; ``replies``: whether there are some.
    """
    found = prompts.list_prompts(
        app.db, split=split, limit=limit, tag=tag, containing=containing, after_id=after_id
    )
    progress = queue_items.rating_counts(app.db)
    return [_row(prompt, progress) for prompt in found]


@router.get("/tags", response_description="Each tag with its number of prompts.")
def list_tags(app: TheApp) -> list[dict[str, Any]]:
    """The tags of the pool, the most frequent first."""
    return [{"tag": tag, "prompts": count} for tag, count in prompts.list_tags(app.db)]


@router.get("/templates", response_description="Each template with its fields.")
def list_templates() -> list[dict[str, Any]]:
    """The kinds of tasks that a prompt can be written by."""
    return [dataclasses.asdict(template) for template in TEMPLATES]


@router.post("", response_description="How many of them were new.")
def add_prompts(app: TheApp, person: ThePerson, body: PromptsBody) -> dict[str, Any]:  # noqa: ARG001
    """Add prompts to the pool; those that it has already are left out.

    With a ``template``, the text goes into it, and ``fields`` into its other places.
    """
    return {"added": prompts.add_prompts(app.db, [_filled(prompt) for prompt in body.prompts])}


@router.patch("/{prompt_id}", response_description="The prompt as it is now.")
def change_prompt(
    app: TheApp,
    person: ThePerson,  # noqa: ARG001
    prompt_id: IdInPath,
    body: PromptChangeBody,
) -> dict[str, Any]:
    """Change the text, the system prompt or the tags; what is left out stays.

    Ratings of the replies to other words are kept, but these are not handed out any more.
    """
    changed = prompts.change_prompt(
        app.db, prompt_id, text=body.text, system_prompt=body.system_prompt, tags=body.tags
    )
    return _row(changed, queue_items.rating_counts(app.db))


@router.delete("/{prompt_id}", response_description="The id of the prompt that is gone.")
def delete_prompt(
    app: TheApp,
    person: ThePerson,  # noqa: ARG001
    prompt_id: IdInPath,
) -> dict[str, Any]:
    """Take a prompt out of the pool; its ratings stay. Within a day it can be restored."""
    prompts.delete_prompt(app.db, prompt_id)
    return {"deleted": prompt_id}


@router.post("/{prompt_id}/restore", response_description="The prompt that is back.")
def restore_prompt(
    app: TheApp,
    person: ThePerson,  # noqa: ARG001
    prompt_id: IdInPath,
) -> dict[str, Any]:
    """Undo the deletion of a prompt."""
    return _row(prompts.restore_prompt(app.db, prompt_id), queue_items.rating_counts(app.db))


@router.post(
    "/import",
    response_description="What was new, what was there already, and each line that was refused.",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def import_prompts(
    app: TheApp,
    person: ThePerson,  # noqa: ARG001
    request: Request,
    name: Annotated[
        str,
        Query(max_length=400, description="Name of the file; its ending tells what it holds."),
    ] = "",
    kind: Annotated[
        Kind | None, Query(description="text (a prompt a line), csv or jsonl; else by the name.")
    ] = None,
    template: Annotated[
        str, Query(max_length=40, description="A task template that each text goes into.")
    ] = "",
    tag: Annotated[list[Tag], Query(max_length=8, description="Tags for each prompt.")] = [],  # noqa: B006
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Add the prompts of a file, which is the body.

    A line that is refused is told, and the others are kept. With ``Accept: text/event-stream`` the
    answer comes as ``import.progress`` events and one ``import.done``.
    """
    chosen = find_template(template) if template else None
    file = io.BytesIO(await request.body())
    lines = read_prompts(file, kind or kind_of(name), template=chosen, tags=tag)
    steps = import_steps(app.db, lines)
    if "text/event-stream" in accept:
        return event_stream(_events(app, steps))
    report = await run_in_threadpool(lambda: list(steps)[-1])
    app.queue.on_take()
    return JSONResponse(report.as_json())


async def _events(app: App, steps: Iterator[PromptReport]) -> AsyncIterator[str]:
    report = PromptReport()
    try:
        async for report in iterate_in_threadpool(steps):
            yield event_text("import.progress", {**report.as_json(), "errors": []})
    except ChatRLHFError as error:
        yield event_text("error", {"error": {"code": error.code, "message": str(error)}})
        return
    app.queue.on_take()
    yield event_text("import.done", report.as_json())


def _filled(body: PromptBody) -> tuple[str, str, list[str]]:
    if body.template is None:
        return body.text, body.system_prompt, body.tags
    template = find_template(body.template)
    text = fill_template(template, {**body.fields, "text": body.text})
    tags = [*body.tags, template.tag] if template.tag else body.tags
    return text, body.system_prompt, tags


def _row(prompt: Prompt, ratings: dict[int, int]) -> dict[str, Any]:
    has_replies = prompt.id in ratings
    return {
        **dataclasses.asdict(prompt),
        "ratings": ratings.get(prompt.id, 0),
        "replies": has_replies,
    }
