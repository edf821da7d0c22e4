"""What a person has done: ratings of today, the sitting they are in, and days in a row."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from storage import queue_ratings
from storage.database import Database

PAUSE_MINUTES = 15  # a longer pause ends a sitting
_FEWEST_FOR_SPEED = 5
_SITTING_HOURS = 24


@dataclass(frozen=True)
class RatingSummary:
    """Ratings of today; of this sitting, over ``minutes``; ``per_hour`` once that means something.

    ``days_in_a_row`` end today, or yesterday as long as today has none.
    """

    today: int
    sitting: int
    minutes: float
    per_hour: float | None
    days_in_a_row: int
    goal: int | None


def summary_of(
    db: Database,
    person_id: int,
    utc_offset_minutes: int,
    moment: datetime.datetime | None = None,
) -> RatingSummary:
    """The summary of a person whose clock is ``utc_offset_minutes`` before UTC's."""
    moment = moment or datetime.datetime.now(datetime.UTC)
    offset = datetime.timedelta(minutes=utc_offset_minutes)
    today = (moment + offset).date()
    midnight = datetime.datetime.combine(today, datetime.time(), datetime.UTC) - offset
    since = min(midnight, moment - datetime.timedelta(hours=_SITTING_HOURS))
    times = queue_ratings.rating_times(db, person_id, since)
    sitting = sitting_of(times, moment)
    minutes = (sitting[-1] - sitting[0]).total_seconds() / 60 if sitting else 0.0
    has_speed = len(sitting) >= _FEWEST_FOR_SPEED and minutes > 0
    return RatingSummary(
        today=sum(time >= midnight for time in times),
        sitting=len(sitting),
        minutes=minutes,
        per_hour=(len(sitting) - 1) / minutes * 60 if has_speed else None,
        days_in_a_row=days_in_a_row(
            queue_ratings.rating_days(db, person_id, utc_offset_minutes), today
        ),
        goal=queue_ratings.goal_of(db, person_id),
    )


def sitting_of(
    times: Sequence[datetime.datetime], moment: datetime.datetime
) -> list[datetime.datetime]:
    """The newest ratings without a long pause between them or after them; oldest first."""
    longest = datetime.timedelta(minutes=PAUSE_MINUTES)
    found: list[datetime.datetime] = []
    after = moment
    for time in reversed(times):
        if after - time > longest:
            break
        found.append(time)
        after = time
    return found[::-1]


def days_in_a_row(days: Sequence[datetime.date], today: datetime.date) -> int:
    """How many of ``days``, the newest first, follow each other up to today or yesterday."""
    one_day = datetime.timedelta(days=1)
    wanted = today if days and days[0] >= today else today - one_day
    count = 0
    for day in days:
        if day > wanted:
            continue
        if day != wanted:
            break
        count += 1
        wanted -= one_day
    return count
