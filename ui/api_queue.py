"""``/api/queue``: what a person rates next, and what has come of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

from fastapi import APIRouter, Query

from chatrlhf.app import App
from chatrlhf.loop.agreement import agreement_between, consistency_of
from chatrlhf.loop.rating_summary import summary_of
from storage import conversations, queue, queue_ratings, rankings
from storage.records import Person
from ui.access import IdInPath, TheApp, ThePerson
from ui.bodies import GoalBody, QueueSettingsBody, SkipBody
from ui.shapes import turn_json

router = APIRouter(prefix="/api/queue", tags=["queue"])

UtcOffset = Annotated[
    int,
    Query(ge=-840, le=840, description="Minutes that the person's clock is before UTC."),
]


@router.get("/next", response_description="The prompt with its replies, or why there is none.")
def next_item(app: TheApp, person: ThePerson) -> dict[str, Any]:
    """What the person is to rate: the same one until they rank the turn or skip it.

    It is theirs for some minutes. ``state`` is ``ready`` (``turn`` has replies, which may still be
    written: follow ``/api/turns/{id}/events``), ``held`` (others are rating all that is left),
    ``loading`` (no replies are ready and the model is not either) or ``done``. ``remaining`` counts
    the prompts that the person may still rate, this one included.
    """
    found = app.queue.next_item(person.id)
    answer: dict[str, Any] = {
        "state": found.state,
        "remaining": found.remaining,
        "message": found.message,
        "prompt": None,
        "turn": None,
    }
    if found.assigned is not None:
        turn = conversations.get_turn(app.db, found.assigned.turn_id, person.id)
        ranking = rankings.active_ranking(app.db, turn.id, person.id)
        answer["prompt"] = dataclasses.asdict(found.assigned.prompt)
        answer["turn"] = turn_json(turn, reveal=False, ranking=ranking)
    return answer


@router.post("/skip", response_description="The turn that was skipped.")
def skip_item(app: TheApp, person: ThePerson, body: SkipBody) -> dict[str, Any]:
    """Leave a turn of the queue to others, with or without a reason."""
    queue.skip(app.db, body.turn_id, person.id, body.reason)
    return {"skipped": body.turn_id}


@router.delete("/skip/{turn_id}", response_description="The turn that is the person's again.")
def undo_skip(app: TheApp, person: ThePerson, turn_id: IdInPath) -> dict[str, Any]:
    """Take a skip back."""
    queue.unskip(app.db, turn_id, person.id)
    return {"turn_id": turn_id}


@router.delete("/skip", response_description="How many came back.")
def undo_all_skips(app: TheApp, person: ThePerson) -> dict[str, Any]:
    """Ask the person again for all that they skipped."""
    return {"restored": queue.unskip_all(app.db, person.id)}


@router.get("/stats", response_description="The person's work, and how far people agree.")
def stats(
    app: TheApp,
    person: ThePerson,
    utc_offset_minutes: UtcOffset = 0,
    *,
    agreement: Annotated[
        bool, Query(description="Whether agreement and consistency are worked out too.")
    ] = True,
) -> dict[str, Any]:
    """Ratings of today and of this sitting, the goal, agreement and self-consistency.

    ``agreement.alpha`` is Krippendorff's for ordinal data over ``items`` that two or more people
    ranked, null where it is not defined. ``consistency`` is the share of pairs that the person
    ordered alike in hidden ``repeats``, with Wilson's 95% interval.
    """
    summary = summary_of(app.db, person.id, utc_offset_minutes)
    found = {
        **dataclasses.asdict(summary),
        "minutes": round(summary.minutes, 1),
        "remaining": queue.remaining(app.db, person.id, app.queue.terms),
        "skipped": queue_ratings.skipped_count(app.db, person.id),
    }
    return {**found, **_agreement(app, person)} if agreement else found


@router.get("/goal", response_description="Rankings a day, or null.")
def get_goal(app: TheApp, person: ThePerson) -> dict[str, Any]:
    """The person's daily goal."""
    return {"goal": queue_ratings.goal_of(app.db, person.id)}


@router.put("/goal", response_description="The goal as it is now.")
def set_goal(app: TheApp, person: ThePerson, body: GoalBody) -> dict[str, Any]:
    """Set the person's daily goal; null removes it."""
    queue_ratings.set_goal(app.db, person.id, body.goal)
    return {"goal": queue_ratings.goal_of(app.db, person.id)}


@router.get("/settings", response_description="What holds for everybody.")
def get_settings(app: TheApp) -> dict[str, Any]:
    """Prompts with replies ``ahead``, and how many people rate each (``overlap``)."""
    return dataclasses.asdict(app.queue.choices)


@router.put("/settings", response_description="What holds from now on.")
def change_settings(app: TheApp, person: ThePerson, body: QueueSettingsBody) -> dict[str, Any]:  # noqa: ARG001
    """Change the queue for everybody; what is left out stays."""
    return dataclasses.asdict(app.queue.choose(ahead=body.ahead, overlap=body.overlap))


def _agreement(app: App, person: Person) -> dict[str, Any]:
    between = agreement_between(queue_ratings.shared_rankings(app.db))
    own = consistency_of(queue_ratings.repeated_rankings(app.db, person.id))
    share = own.share.estimate
    consistency = {
        "share": None if math.isnan(share) else share,
        "low": own.share.low,
        "high": own.share.high,
        "repeats": own.repeats,
        "sentence": own.sentence,
    }
    return {"agreement": dataclasses.asdict(between), "consistency": consistency}
