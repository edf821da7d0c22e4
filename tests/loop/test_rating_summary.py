"""Ratings of today, of this sitting, and days in a row, by hand-made times."""

from __future__ import annotations

import datetime

import pytest
from rated_queue import make_items, next_turn, rate, team

from chatrlhf.loop.rating_summary import days_in_a_row, sitting_of, summary_of
from storage import people, queue_ratings
from storage.values import now

NOON = datetime.datetime(2026, 3, 10, 12, 0, tzinfo=datetime.UTC)


def minutes(*numbers):
    return [NOON - datetime.timedelta(minutes=number) for number in numbers]


def test_a_sitting_ends_at_a_long_pause():
    assert sitting_of(minutes(60, 40, 20, 10, 1), NOON) == minutes(20, 10, 1)
    assert sitting_of(minutes(60, 20), NOON) == []
    assert sitting_of([], NOON) == []
    assert sitting_of(minutes(30, 15, 0), NOON) == minutes(30, 15, 0)


@pytest.mark.parametrize(
    ("ago", "count"),
    [([], 0), ([0], 1), ([1], 1), ([2], 0), ([0, 1, 2], 3), ([1, 2, 4], 2), ([0, 2], 1),
     ([-1, 0, 1], 2)],
)  # fmt: skip
def test_days_in_a_row_end_today_or_yesterday(ago, count):
    today = NOON.date()
    days = [today - datetime.timedelta(days=number) for number in ago]
    assert days_in_a_row(days, today) == count


def test_today_is_the_persons_own_day(db):
    make_items(db, 8)
    (me,) = team(db, 1)
    moments = [*minutes(13 * 60, 12 * 60 - 1), *minutes(8, 6, 4, 2, 0)]
    for moment in moments:
        turn = next_turn(db, me)
        saved = rate(db, turn, me)
        with db.transaction() as connection:
            connection.execute(
                "UPDATE rankings SET created_at = ? WHERE id = ?", [now(moment), saved.id]
            )
    utc = summary_of(db, me, 0, NOON)
    assert (utc.today, utc.sitting, utc.days_in_a_row) == (6, 5, 2)
    assert utc.minutes == 8
    assert utc.per_hour == 30  # four steps in eight minutes
    east = summary_of(db, me, 120, NOON)  # 14:00 there: all since 22:00 UTC is today
    assert (east.today, east.days_in_a_row) == (7, 1)
    west = summary_of(db, me, -720, NOON)  # midnight there: the day begins with the last one
    assert west.today == 1
    other = people.create_person(db, "other").id
    nothing = summary_of(db, other, 0, NOON)
    assert (nothing.today, nothing.per_hour, nothing.days_in_a_row, nothing.goal) == (
        0,
        None,
        0,
        None,
    )
    queue_ratings.set_goal(db, me, 20)
    queue_ratings.set_goal(db, me, 30)
    assert summary_of(db, me, 0, NOON).goal == 30
    queue_ratings.set_goal(db, me, None)
    assert queue_ratings.goal_of(db, me) is None


def test_an_imported_ranking_is_no_work_of_today(db):
    (turn,) = make_items(db, 1)
    (me,) = team(db, 1)
    rate(db, turn, me)
    moment = datetime.datetime.now(datetime.UTC)
    assert summary_of(db, me, 0, moment + datetime.timedelta(seconds=1)).sitting == 1
    with db.transaction() as connection:
        connection.execute("UPDATE conversations SET origin = 'hh-rlhf'")
    assert summary_of(db, me, 0, moment).today == 0
