from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils.utils import sqlite3

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.conversations import create_conversation
from storage.database import Database
from storage.people import create_person
from storage.rankings import (
    active_ranking,
    comparison_count,
    count_new,
    get_ranking,
    list_rankings,
    newest_id,
    order_text,
    ranked_turns,
    revise_ranking,
    save_ranking,
    withdraw_ranking,
)
from storage.records import Message


def ranks_of(turn, *ranks: int) -> dict[int, int]:
    return {reply.id: rank for reply, rank in zip(turn.replies, ranks, strict=True)}


@pytest.mark.parametrize(
    ("ranks", "order", "comparisons"),
    [
        ({0: 2, 1: 1, 2: 4, 3: 3}, "2>1>4>3", 6),
        ({0: 2, 1: 1, 2: 3, 3: 2}, "2>1=4>3", 5),
        ({0: 1, 1: 1}, "1=2", 0),
        ({3: 1, 1: 2}, "4>2", 1),
        ({0: 1}, "1", 0),
        ({}, "", 0),
    ],
)
def test_an_order_is_told_in_shown_positions(ranks, order: str, comparisons: int) -> None:
    assert order_text(ranks) == order
    assert comparison_count(ranks.values()) == comparisons


@given(st.dictionaries(st.integers(0, 63), st.integers(1, 8), min_size=1))
def test_the_told_order_says_the_same_as_the_ranks(ranks: dict[int, int]) -> None:
    groups = [[int(place) for place in group.split("=")] for group in order_text(ranks).split(">")]
    assert sorted(place for group in groups for place in group) == [p + 1 for p in sorted(ranks)]
    levels = [{ranks[place - 1] for place in group} for group in groups]
    assert all(len(level) == 1 for level in levels)
    assert levels == sorted(levels, key=min)
    tied = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    assert comparison_count(ranks.values()) == len(ranks) * (len(ranks) - 1) // 2 - tied


def test_a_ranking_is_kept_with_all_that_was_said(db: Database, me, make_turn) -> None:
    turn = make_turn()
    ranking = save_ranking(
        db, turn.id, me.id, ranks_of(turn, 2, 1, 4, 2), strength=5, comment="so so"
    )
    assert ranking.ranks == ranks_of(turn, 2, 1, 3, 2)  # dense
    assert (ranking.order, ranking.comparisons) == ("2>1=4>3", 5)
    assert (ranking.strength, ranking.comment, ranking.all_bad) == (5, "so so", False)
    assert (ranking.state, ranking.revision_of) == ("active", None)
    assert get_ranking(db, ranking.id) == ranking == active_ranking(db, turn.id, me.id)


def test_all_bad_needs_no_ranks(db: Database, me, make_turn) -> None:
    ranking = save_ranking(db, make_turn().id, me.id, {}, all_bad=True)
    assert (ranking.order, ranking.comparisons, ranking.all_bad) == ("1=2=3=4", 0, True)


@pytest.mark.parametrize("ranks", [(0, 1, 2, 3), (1, 2, 3, 5), (1, 2, 3, -1), (True, 2, 3, 4)])
def test_ranks_out_of_range_are_refused(ranks, db: Database, me, make_turn) -> None:
    turn = make_turn()
    with pytest.raises(BadInputError, match="it must be 1 to 4"):
        save_ranking(db, turn.id, me.id, ranks_of(turn, *ranks))
    assert list_rankings(db, state=None) == []


def test_missing_foreign_and_interrupted_replies_are_refused(db: Database, me, make_turn) -> None:
    turn = make_turn(("complete", "cancelled", "interrupted"))
    other = make_turn()
    first, second, third = (reply.id for reply in turn.replies)
    for ranks, says in [
        ({first: 1}, rf"replies \[{second}\] have no rank"),
        ({}, "have no rank"),
        ({first: 1, second: 2, other.replies[0].id: 2}, "is not of turn"),
        ({first: 1, second: 2, 10**30: 2}, "is not of turn"),
        ({first: 1, second: 2, third: 2}, "was interrupted"),
    ]:
        with pytest.raises(BadInputError, match=says):
            save_ranking(db, turn.id, me.id, ranks)
    assert save_ranking(db, turn.id, me.id, {first: 2, second: 1}).order == "2>1"


def test_the_database_itself_refuses_a_reply_of_another_turn(db: Database, me, make_turn) -> None:
    turn, other = make_turn(), make_turn()
    ranking = save_ranking(db, turn.id, me.id, {}, all_bad=True)
    for turn_id in (turn.id, other.id):
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            db.connection().execute(
                "INSERT INTO ranking_entries VALUES (?, ?, ?, 1)",
                [ranking.id, turn_id, other.replies[0].id],
            )


def test_nothing_is_ranked_before_all_replies_ended(db: Database, me, make_turn) -> None:
    turn = make_turn(("complete", "streaming"))
    with pytest.raises(ConflictError, match="still stream"):
        save_ranking(db, turn.id, me.id, ranks_of(turn, 1, 2))
    broken = make_turn(("interrupted",))
    with pytest.raises(ConflictError, match="no finished reply"):
        save_ranking(db, broken.id, me.id, {}, all_bad=True)


def test_unknown_turns_and_people_are_named(db: Database, me, make_turn) -> None:
    turn = make_turn()
    with pytest.raises(NotFoundError, match="no turn 99"):
        save_ranking(db, 99, me.id, {})
    with pytest.raises(NotFoundError, match="no person 99"):
        save_ranking(db, turn.id, 99, {}, all_bad=True)
    with pytest.raises(NotFoundError, match="no ranking 99"):
        get_ranking(db, 99)


@pytest.mark.parametrize("strength", [0, 6, True, 1.5])
def test_strength_out_of_range_is_refused(strength, db: Database, me, make_turn) -> None:
    with pytest.raises(BadInputError, match="strength"):
        save_ranking(db, make_turn().id, me.id, {}, all_bad=True, strength=strength)


def test_a_second_ranking_supersedes_the_first(db: Database, me, make_turn) -> None:
    turn = make_turn()
    first = save_ranking(db, turn.id, me.id, ranks_of(turn, 1, 2, 3, 4))
    second = save_ranking(db, turn.id, me.id, ranks_of(turn, 4, 3, 2, 1))
    third = revise_ranking(db, second.id, ranks_of(turn, 1, 1, 1, 2), comment="hm")
    assert [first.revision_of, second.revision_of, third.revision_of] == [None, 1, 2]
    assert [item.state for item in list_rankings(db, state=None)] == [
        "superseded",
        "superseded",
        "active",
    ]
    with pytest.raises(ConflictError, match=f"ranking {second.id} is superseded"):
        revise_ranking(db, second.id, ranks_of(turn, 1, 2, 3, 4))
    with pytest.raises(ConflictError, match="superseded"):
        withdraw_ranking(db, first.id)


def test_undo_walks_back_through_the_revisions(db: Database, me, make_turn) -> None:
    turn = make_turn()
    first = save_ranking(db, turn.id, me.id, ranks_of(turn, 1, 2, 3, 4))
    second = save_ranking(db, turn.id, me.id, ranks_of(turn, 4, 3, 2, 1))
    assert withdraw_ranking(db, second.id) == first
    assert withdraw_ranking(db, first.id) is None
    assert active_ranking(db, turn.id, me.id) is None
    again = save_ranking(db, turn.id, me.id, ranks_of(turn, 1, 1, 2, 2))
    assert again.revision_of is None


def test_people_rank_the_same_turn_apart(db: Database, me, make_turn) -> None:
    other = create_person(db, "other")
    turn = make_turn()
    mine = save_ranking(db, turn.id, me.id, ranks_of(turn, 1, 2, 3, 4), idempotency_key="a")
    theirs = save_ranking(db, turn.id, other.id, ranks_of(turn, 4, 3, 2, 1), idempotency_key="a")
    assert {item.id for item in list_rankings(db, turn_id=turn.id)} == {mine.id, theirs.id}
    assert list_rankings(db, person_id=other.id) == [theirs]
    for refused in (
        lambda: get_ranking(db, mine.id, other.id),
        lambda: withdraw_ranking(db, mine.id, other.id),
        lambda: revise_ranking(db, mine.id, ranks_of(turn, 1, 1, 1, 1), person_id=other.id),
    ):
        with pytest.raises(NotFoundError):
            refused()


def test_the_same_key_saves_once(db: Database, me, make_turn) -> None:
    turn = make_turn()
    first = save_ranking(db, turn.id, me.id, ranks_of(turn, 2, 1, 4, 2), idempotency_key="k")
    again = save_ranking(db, turn.id, me.id, ranks_of(turn, 2, 1, 3, 2), idempotency_key="k")
    assert again == first  # the same order, written in other numbers
    for change in ({"strength": 1}, {"comment": "x"}, {"all_bad": True}):
        with pytest.raises(ConflictError, match="use a new key"):
            save_ranking(
                db, turn.id, me.id, ranks_of(turn, 2, 1, 4, 2), idempotency_key="k", **change
            )
    with pytest.raises(ConflictError, match="use a new key"):
        revise_ranking(db, first.id, ranks_of(turn, 1, 2, 3, 4), idempotency_key="k")
    assert list_rankings(db, state=None) == [first]


def test_a_revision_sent_twice_is_saved_once(db: Database, me, make_turn) -> None:
    turn = make_turn()
    first = save_ranking(db, turn.id, me.id, ranks_of(turn, 1, 2, 3, 4))
    second = revise_ranking(db, first.id, ranks_of(turn, 4, 3, 2, 1), idempotency_key="r")
    assert revise_ranking(db, first.id, ranks_of(turn, 4, 3, 2, 1), idempotency_key="r") == second


def test_rankings_are_listed_in_pages(db: Database, me, make_turn) -> None:
    for _ in range(5):
        save_ranking(db, make_turn().id, me.id, {}, all_bad=True)
    assert [item.id for item in list_rankings(db, limit=2)] == [1, 2]
    assert [item.id for item in list_rankings(db, after_id=2, limit=2)] == [3, 4]
    assert [item.id for item in list_rankings(db, after_id=4)] == [5]


def test_new_rankings_are_counted_by_id(db: Database, me, make_turn) -> None:
    assert (newest_id(db), count_new(db, 0)) == (0, 0)
    turns = [make_turn() for _ in range(3)]
    for turn in turns:
        save_ranking(db, turn.id, me.id, {}, all_bad=True)
    assert (newest_id(db), count_new(db, 0), count_new(db, 1)) == (3, 3, 2)
    revised = save_ranking(db, turns[0].id, me.id, ranks_of(turns[0], 1, 2, 3, 4))
    assert (newest_id(db), count_new(db, 0), count_new(db, 3)) == (4, 3, 1)
    withdraw_ranking(db, revised.id)
    assert (newest_id(db), count_new(db, 0), count_new(db, 3)) == (3, 3, 0)


def test_ranked_turns_hold_context_replies_and_ranks(db: Database, me, make_turn) -> None:
    chat = create_conversation(db, me.id, "Be brief.")
    first = make_turn(text="One", conversation_id=chat.id)
    second = make_turn(
        ("complete", "interrupted", "cancelled"),
        parent=first.replies[3].id,
        text="Two",
        conversation_id=chat.id,
    )
    old = save_ranking(db, second.id, me.id, {}, all_bad=True)
    best, _, worst = (reply.id for reply in second.replies)
    new = revise_ranking(db, old.id, {best: 1, worst: 2}, strength=2)
    save_ranking(db, first.id, me.id, {}, all_bad=True)
    example, tied = ranked_turns(db)
    assert (example.ranking_id, example.turn_id, example.person_id) == (new.id, second.id, me.id)
    assert example.messages == (
        Message("system", "Be brief."),
        Message("user", "One"),
        Message("assistant", "reply 3"),
        Message("user", "Two"),
    )
    assert example.replies == ("reply 0", "reply 2")
    assert example.reply_ids == (best, worst)
    assert example.finished == (True, False)
    assert (example.ranks, example.strength, example.all_bad) == ((1, 2), 2, False)
    assert (tied.ranks, tied.all_bad) == ((1, 1, 1, 1), True)
    assert ranked_turns(db, up_to_ranking_id=new.id) == [example]
    assert ranked_turns(db, up_to_ranking_id=old.id) == []
