"""``/api/rankings``: find, look at, change and delete what was ranked."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from chatrlhf.app import App
from storage import conversations, labels, people, rankings, ratings, withdrawals
from storage.records import Ranking
from ui.access import IdInPath, TheApp, ThePerson
from ui.api_ratings import saved_json
from ui.bodies import RankingBody
from ui.rating_filters import AnyId, Limit, TheRankingFilter, whose
from ui.shapes import found_ranking_json, label_json, ranking_json, turn_json

router = APIRouter(prefix="/api", tags=["ratings"])


@router.get("/rankings")
def list_rankings(
    app: TheApp,
    wanted: TheRankingFilter,
    *,
    after_id: Annotated[
        AnyId, Query(description="Those above this id, oldest first; so too without any bound.")
    ] = None,
    before_id: Annotated[
        AnyId, Query(description="Those below this id, newest first; 0 begins at the newest.")
    ] = None,
    limit: Limit = 100,
) -> list[dict[str, Any]]:
    """Active rankings, one's own unless an admin asks for others.

    Without bounds, or with ``after_id``, the oldest come first; with ``before_id``, the newest. The
    last id of a page is the bound of the next: what comes or goes meanwhile shifts nothing.
    """
    if before_id is None:
        found = ratings.find_rankings(app.db, wanted, after_id=after_id or 0, limit=limit)
    else:
        below = before_id or None
        found = ratings.find_rankings(app.db, wanted, before_id=below, limit=limit)
    return [found_ranking_json(one) for one in found]


@router.get("/rankings/count")
def count_rankings(
    app: TheApp,
    wanted: TheRankingFilter,
) -> dict[str, int]:
    """How many rankings a filter finds; it is that of ``GET /api/rankings``."""
    return {"count": ratings.count_rankings(app.db, wanted)}


@router.get("/rankings/choices")
def list_choices(app: TheApp, person: ThePerson) -> dict[str, list[str]]:
    """What ratings can be filtered by: names of people, labels and versions."""
    return ratings.filter_choices(app.db, whose(person))


@router.get("/rankings/{ranking_id}")
def get_ranking(
    app: TheApp,
    person: ThePerson,
    ranking_id: IdInPath,
    *,
    details: Annotated[
        bool,
        Query(description="With the conversation before, the turn, labels and earlier orders."),
    ] = False,
) -> dict[str, Any]:
    """One ranking, of any state: one's own, or for an admin anybody's."""
    ranking = rankings.get_ranking(app.db, ranking_id, whose(person))
    shown = {**ranking_json(ranking), "mine": ranking.person_id == person.id}
    return {**shown, **(_details(app, ranking) if details else {})}


@router.put("/rankings/{ranking_id}")
def revise_ranking(
    app: TheApp, person: ThePerson, ranking_id: IdInPath, body: RankingBody
) -> dict[str, Any]:
    """Replace an active ranking of one's own by a revision, which gets an id of its own."""
    started = time.perf_counter()
    revised = rankings.revise_ranking(
        app.db,
        ranking_id,
        body.ranks_by_id(),
        person_id=person.id,
        strength=body.strength,
        comment=body.comment,
        all_bad=body.all_bad,
        idempotency_key=body.idempotency_key,
    )
    return saved_json(app, revised, started)


@router.delete("/rankings/{ranking_id}")
def delete_ranking(
    app: TheApp,
    person: ThePerson,
    ranking_id: IdInPath,
    mode: Annotated[
        Literal["undo", "withdraw", "erase"],
        Query(
            description="undo: the order that it revised, if any, is active again; withdraw: the "
            "rating no longer counts, and can be restored; erase: its rows go, with its earlier "
            "orders, and the versions that learned from it are marked."
        ),
    ] = "undo",
) -> dict[str, Any]:
    """Undo, withdraw or erase a ranking: one's own, or as an admin anybody's.

    The answer has the ranking that is now active in its place, or null, and the versions that were
    marked as trained on an erased ranking.
    """
    now_active = None
    marked: list[str] = []
    if mode == "undo":
        now_active = rankings.withdraw_ranking(app.db, ranking_id, whose(person))
    elif mode == "withdraw":
        withdrawals.take_back(app.db, ranking_id, whose(person))
    else:
        marked = withdrawals.erase_ranking(app.db, ranking_id, whose(person), by=person.id)
    return {
        "ranking": None if now_active is None else ranking_json(now_active),
        "versions": marked,
        "next_refit_in": app.next_refit_in(),
    }


@router.post("/rankings/{ranking_id}/restore")
def restore_ranking(app: TheApp, person: ThePerson, ranking_id: IdInPath) -> dict[str, Any]:
    """Have a ranking that was withdrawn count again."""
    restored = withdrawals.bring_back(app.db, ranking_id, whose(person))
    app.feedback_given()
    return {**ranking_json(restored), "next_refit_in": app.next_refit_in()}


def _details(app: App, ranking: Ranking) -> dict[str, Any]:
    turn = conversations.get_turn(app.db, ranking.turn_id)
    before = conversations.messages_before(app.db, turn.conversation_id, turn.parent_reply_id)
    mine = [
        label
        for reply in turn.replies
        for label in labels.labels_of(app.db, reply.id)
        if label.person_id == ranking.person_id
    ]
    others = rankings.list_rankings(
        app.db, person_id=ranking.person_id, turn_id=ranking.turn_id, state=None, limit=1000
    )
    return {
        "person": people.get_person(app.db, ranking.person_id).name,
        "conversation_id": turn.conversation_id,
        "before": [dataclasses.asdict(message) for message in before],
        "turn": turn_json(turn, reveal=True, ranking=ranking),
        "labels": [label_json(label) for label in mine],
        "earlier": [ranking_json(one) for one in others if one.id < ranking.id],
    }
