"""``/api``: rankings, demonstrations, labels, and the pool of prompts."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from chatrlhf.app import App
from storage import conversations, demonstrations, labels, prompts, queue, rankings
from storage.records import Prompt, Ranking
from ui.access import IdInPath, TheApp
from ui.bodies import DemonstrationBody, LabelBody, PromptsBody, RankingBody
from ui.shapes import demonstration_json, ranking_json

router = APIRouter(prefix="/api", tags=["ratings"])

Limit = Annotated[int, Query(ge=1, le=1000)]
PoolLimit = Annotated[int, Query(ge=1, le=100_000)]
After = Annotated[int, Query(ge=0, le=2**63 - 1)]


@router.post("/turns/{turn_id}/ranking")
def rank_turn(app: TheApp, turn_id: IdInPath, body: RankingBody) -> dict[str, Any]:
    """Rank all replies of a turn; ranking it again is a revision."""
    conversations.get_turn(app.db, turn_id, app.person.id)
    saved = rankings.save_ranking(
        app.db,
        turn_id,
        app.person.id,
        body.ranks_by_id(),
        strength=body.strength,
        comment=body.comment,
        all_bad=body.all_bad,
        idempotency_key=body.idempotency_key,
    )
    return _saved(app, saved)


@router.get("/rankings")
def list_rankings(app: TheApp, after_id: After = 0, limit: Limit = 100) -> list[dict[str, Any]]:
    """The person's active rankings, oldest first."""
    found = rankings.list_rankings(
        app.db, person_id=app.person.id, state="active", after_id=after_id, limit=limit
    )
    return [ranking_json(ranking) for ranking in found]


@router.get("/rankings/{ranking_id}")
def get_ranking(app: TheApp, ranking_id: IdInPath) -> dict[str, Any]:
    """One ranking of the person."""
    return ranking_json(rankings.get_ranking(app.db, ranking_id, app.person.id))


@router.put("/rankings/{ranking_id}")
def revise_ranking(app: TheApp, ranking_id: IdInPath, body: RankingBody) -> dict[str, Any]:
    """Replace an active ranking by a revision, which gets an id of its own."""
    revised = rankings.revise_ranking(
        app.db,
        ranking_id,
        body.ranks_by_id(),
        person_id=app.person.id,
        strength=body.strength,
        comment=body.comment,
        all_bad=body.all_bad,
        idempotency_key=body.idempotency_key,
    )
    return _saved(app, revised)


@router.delete("/rankings/{ranking_id}")
def undo_ranking(app: TheApp, ranking_id: IdInPath) -> dict[str, Any]:
    """Withdraw a ranking; the one that it revised, if any, is active again."""
    now_active = rankings.withdraw_ranking(app.db, ranking_id, app.person.id)
    return {
        "ranking": None if now_active is None else ranking_json(now_active),
        "next_refit_in": app.next_refit_in(),
    }


@router.post("/turns/{turn_id}/demonstration")
def write_demonstration(app: TheApp, turn_id: IdInPath, body: DemonstrationBody) -> dict[str, Any]:
    """Store the reply that the person would have wanted."""
    conversations.get_turn(app.db, turn_id, app.person.id)
    saved = demonstrations.save_demonstration(app.db, app.person.id, body.text, turn_id=turn_id)
    app.feedback_given()
    return demonstration_json(saved)


@router.post("/replies/{reply_id}/labels")
def label_reply(app: TheApp, reply_id: IdInPath, body: LabelBody) -> dict[str, Any]:
    """Say whether a word such as ``toxic`` applies to a reply."""
    conversations.get_reply(app.db, reply_id, app.person.id)
    labels.save_label(app.db, reply_id, app.person.id, body.label, body.value)
    return {"reply_id": reply_id, "label": body.label, "value": body.value}


@router.get("/prompts")
def list_prompts(
    app: TheApp,
    split: Literal["train", "held_out"] | None = None,
    limit: PoolLimit = 10_000,
) -> list[dict[str, Any]]:
    """The pool of prompts."""
    return [_prompt_json(row) for row in prompts.list_prompts(app.db, split=split, limit=limit)]


@router.post("/prompts")
def add_prompts(app: TheApp, body: PromptsBody) -> dict[str, Any]:
    """Add prompts to the pool; those that it has already are left out."""
    rows = [(prompt.text, prompt.system_prompt, prompt.tags) for prompt in body.prompts]
    return {"added": prompts.add_prompts(app.db, rows)}


@router.get("/queue/next")
def next_prompt(app: TheApp) -> dict[str, Any]:
    """The first prompt of the pool that the person has not ranked yet, or null."""
    prompt, remaining = queue.next_unranked(app.db, app.person.id)
    return {"prompt": None if prompt is None else _prompt_json(prompt), "remaining": remaining}


def _saved(app: App, ranking: Ranking) -> dict[str, Any]:
    app.feedback_given()
    return {**ranking_json(ranking), "next_refit_in": app.next_refit_in()}


def _prompt_json(prompt: Prompt) -> dict[str, Any]:
    return dataclasses.asdict(prompt)
