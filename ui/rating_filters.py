"""Which ratings a request asks for, and whose it may see."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Annotated

from fastapi import Depends, Query

from chatrlhf.errors import BadInputError, NotFoundError
from storage import people
from storage.ratings import RatingFilter
from storage.records import Person
from ui.access import TheApp, ThePerson
from ui.bodies import LARGEST_ID

Limit = Annotated[int, Query(ge=1, le=1000, description="The most that one answer holds.")]
AnyId = Annotated[int | None, Query(ge=0, le=LARGEST_ID)]
Name = Annotated[str | None, Query(min_length=1, max_length=100)]


def whose(person: Person) -> int | None:
    """The person whose ratings somebody may see and delete; None for an admin: everybody's."""
    return None if person.role == "admin" else person.id


def _filter(
    app: TheApp,
    me: ThePerson,
    *,
    q: Annotated[
        str,
        Query(
            max_length=1000,
            description="Words of the prompt, the replies or the comment: the beginnings of words, "
            'or a "quoted phrase"; all must be there.',
        ),
    ] = "",
    person: Annotated[
        str | None,
        Query(min_length=1, max_length=100, description="For an admin: of whom, by name."),
    ] = None,
    everybody: Annotated[
        bool, Query(description="For an admin: of everybody, where it is else of oneself.")
    ] = False,
    since: Annotated[
        datetime.datetime | None,
        Query(description="From this day or moment on; UTC where it names no zone."),
    ] = None,
    until: Annotated[
        datetime.datetime | None, Query(description="Before this day or moment.")
    ] = None,
    conversation: Annotated[AnyId, Query(description="Of one conversation, by id.")] = None,
) -> RatingFilter:
    return RatingFilter(
        person_id=_person_id(app, me, person, everybody=everybody),
        conversation_id=conversation,
        since=_moment(since),
        until=_moment(until),
        words=q.strip(),
    )


TheFilter = Annotated[RatingFilter, Depends(_filter)]


def _ranking_filter(
    wanted: TheFilter,
    *,
    all_bad: Annotated[
        bool | None, Query(description="Only those that call all replies bad, or not.")
    ] = None,
    commented: Annotated[
        bool | None, Query(description="Only those with a comment, or without.")
    ] = None,
    label: Annotated[Name, Query(description="Where the rater gave a reply this label.")] = None,
    version: Annotated[
        Name, Query(description="Where this version wrote one of the replies.")
    ] = None,
) -> RatingFilter:
    return dataclasses.replace(
        wanted, all_bad=all_bad, commented=commented, label=label, version=version
    )


TheRankingFilter = Annotated[RatingFilter, Depends(_ranking_filter)]


def _person_id(app: TheApp, me: Person, name: str | None, *, everybody: bool) -> int | None:
    if name is not None and everybody:
        raise BadInputError("Send either a person or everybody, not both.")
    if name is None:
        return whose(me) if everybody else me.id
    found = people.find_person(app.db, name)
    if found is None or whose(me) not in (None, found.id):
        raise NotFoundError(f"There is no person {name!r} whose ratings you may see.")
    return found.id


def _moment(time: datetime.datetime | None) -> str | None:
    """As rows hold times, which therefore compare as texts."""
    if time is None:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    try:
        utc = time.astimezone(datetime.UTC)
    except OverflowError as error:
        raise BadInputError(
            f"{time} is out of range. Send a day of the years 1 to 9999."
        ) from error
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
