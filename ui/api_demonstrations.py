"""``/api/demonstrations``: find, look at, change and delete the replies that people wrote."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from chatrlhf.app import App
from storage import conversations, demonstrations, people, ratings
from storage.ratings import FoundDemonstration
from storage.records import Person
from ui.access import IdInPath, TheApp, ThePerson
from ui.bodies import DemonstrationBody
from ui.rating_filters import AnyId, Limit, TheFilter, whose
from ui.shapes import found_demonstration_json

router = APIRouter(prefix="/api", tags=["ratings"])


@router.get("/demonstrations")
def list_demonstrations(
    app: TheApp,
    wanted: TheFilter,
    *,
    before_id: Annotated[
        AnyId, Query(description="Those below this id; the last id of the page before.")
    ] = None,
    limit: Limit = 100,
) -> list[dict[str, Any]]:
    """Replies that people wrote, newest first: one's own unless an admin asks for others."""
    found = ratings.find_demonstrations(app.db, wanted, before_id=before_id or None, limit=limit)
    return [found_demonstration_json(one) for one in found]


@router.get("/demonstrations/count")
def count_demonstrations(app: TheApp, wanted: TheFilter) -> dict[str, int]:
    """How many demonstrations a filter finds."""
    return {"count": ratings.count_demonstrations(app.db, wanted)}


@router.get("/demonstrations/{demonstration_id}")
def get_demonstration(app: TheApp, person: ThePerson, demonstration_id: IdInPath) -> dict[str, Any]:
    """One demonstration with the conversation before it."""
    return _demonstration(app, person, demonstration_id, whose(person))


@router.put("/demonstrations/{demonstration_id}")
def rewrite_demonstration(
    app: TheApp, person: ThePerson, demonstration_id: IdInPath, body: DemonstrationBody
) -> dict[str, Any]:
    """Store another text in place of one's own demonstration; it gets an id of its own."""
    written = demonstrations.rewrite_demonstration(app.db, demonstration_id, body.text, person.id)
    app.feedback_given()
    return _demonstration(app, person, written.id, person.id)


@router.delete("/demonstrations/{demonstration_id}")
def delete_demonstration(
    app: TheApp, person: ThePerson, demonstration_id: IdInPath
) -> dict[str, Any]:
    """Erase a demonstration: one's own, or as an admin anybody's."""
    demonstrations.delete_demonstration(app.db, demonstration_id, whose(person))
    return {"deleted": demonstration_id}


def _demonstration(app: App, me: Person, identity: int, person_id: int | None) -> dict[str, Any]:
    found = demonstrations.get_demonstration(app.db, identity, person_id)
    name = people.get_person(app.db, found.person_id).name
    conversation = None
    if found.turn_id is not None:
        conversation = conversations.get_turn(app.db, found.turn_id).conversation_id
    shown = found_demonstration_json(FoundDemonstration(found, name, conversation))
    return {**shown, "mine": found.person_id == me.id}
