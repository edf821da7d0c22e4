"""What was rated in the queue leaves and comes back; repeats and what waits do not."""

from __future__ import annotations

import io

import pytest
from rated_queue import ALWAYS, make_items, next_turn, rate, team

from chatrlhf.loop.exchange.exports import EXPORTS
from chatrlhf.loop.exchange.imports import import_records
from storage import conversations, people, queue, queue_ratings, rankings
from storage.backup import write_backup
from storage.database import open_database
from storage.queue import Terms


@pytest.fixture
def rated(tmp_path):
    """Seven of nine items are rated by one person, the first of them twice."""
    db = open_database(tmp_path / "here" / "chatrlhf.db")
    make_items(db, 9)
    (rater,) = team(db, 1)
    for _ in range(7):
        rate(db, next_turn(db, rater), rater)
    repeat = next_turn(db, rater, rng=ALWAYS)
    rate(db, repeat, rater)
    queue_ratings.set_goal(db, rater, 25)
    yield db, rater
    db.close()


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_an_export_holds_what_was_rated_once(rated, tmp_path, form):
    db, _ = rated
    there = open_database(tmp_path / "there" / "chatrlhf.db")
    admin = people.ensure_local_person(there)
    data = b"".join(part for _, part in EXPORTS[form].parts(db, None))
    report = import_records(there, io.BytesIO(data), admin)
    assert (report.failed, report.added.conversations, report.added.rankings) == (0, 7, 7)
    orders = [[one.messages, one.replies, one.ranks] for one in rankings.ranked_turns(db)]
    assert [[r.messages, r.replies, r.ranks] for r in rankings.ranked_turns(there)] == orders
    assert conversations.list_conversations(there, admin.id) == []
    again = import_records(there, io.BytesIO(data), admin)
    assert (again.duplicates, bool(again.added)) == (7, False)
    there.close()


def test_a_rater_takes_their_own_along(rated, tmp_path):
    db, rater = rated
    there = open_database(tmp_path / "there" / "chatrlhf.db")
    me = people.create_person(there, "rater 1")
    data = b"".join(part for _, part in EXPORTS["jsonl"].parts(db, rater))
    report = import_records(there, io.BytesIO(data), me)
    assert (report.failed, report.added.rankings) == (0, 7)
    there.close()


def test_a_backup_holds_everything(rated, tmp_path):
    db, rater = rated
    copy = open_database(write_backup(db.connection(), tmp_path / "copy.db"))
    assert len(queue_ratings.repeated_rankings(copy, rater)) == 1
    assert queue_ratings.goal_of(copy, rater) == 25
    assert queue.remaining(copy, rater, Terms()) == 2
    copy.close()
