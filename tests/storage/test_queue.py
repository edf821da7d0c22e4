"""Who is given which item of the rating queue."""

from __future__ import annotations

import datetime
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rated_queue import NEVER, fill_pool, make_item, make_items, next_turn, rate, team

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage import conversations, labels, people, prompts, queue, queue_items, rankings
from storage.database import open_database
from storage.queue import Terms
from storage.values import now

TWO = Terms(overlap=2)


def set_lease(db, turn_id, person, minutes_ago):
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes_ago)
    with db.transaction() as connection:
        connection.execute(
            "UPDATE queue_assignments SET leased_at = ? WHERE turn_id = ? AND person_id = ?",
            [now(moment), turn_id, person],
        )


def test_items_come_in_order_until_each_is_rated(db):
    turns, (me,) = make_items(db, 3), team(db, 1)
    for left, turn in ((3, turns[0]), (2, turns[1]), (1, turns[2])):
        assert queue.remaining(db, me, Terms()) == left
        assert next_turn(db, me) == turn
        assert next_turn(db, me) == turn  # it is mine until I rate it
        rate(db, turn, me)
    assert next_turn(db, me) is None
    assert queue.remaining(db, me, Terms()) == 0


def test_two_people_get_different_items(db):
    turns, (ann, bob) = make_items(db, 2), team(db, 2)
    assert [next_turn(db, ann), next_turn(db, bob)] == turns
    rate(db, turns[0], ann)
    assert next_turn(db, ann) is None  # the other one is Bob's
    assert queue.remaining(db, ann, Terms()) == 1


def test_with_an_overlap_of_two_both_rate_and_a_third_does_not(db):
    (turn,), (ann, bob, cy) = make_items(db, 1), team(db, 3)
    assert next_turn(db, ann, TWO) == turn
    assert next_turn(db, bob, TWO) == turn
    assert next_turn(db, cy, TWO) is None
    rate(db, turn, ann)
    assert next_turn(db, cy, TWO) is None
    rate(db, turn, bob)
    assert queue.remaining(db, cy, TWO) == 0


def test_what_is_nearly_done_comes_first(db):
    turns, (ann, bob) = make_items(db, 3), team(db, 2)
    for turn in turns[:2]:
        assert next_turn(db, ann, TWO) == turn
        queue.skip(db, turn, ann)
    assert next_turn(db, ann, TWO) == turns[2]
    rate(db, turns[2], ann)
    assert next_turn(db, bob, TWO) == turns[2]


def test_an_old_lease_is_over_and_a_late_rating_still_counts(db):
    (turn,), (ann, bob) = make_items(db, 1), team(db, 2)
    next_turn(db, ann)
    set_lease(db, turn, ann, 14)
    assert next_turn(db, bob) is None
    set_lease(db, turn, ann, 16)
    assert next_turn(db, bob) == turn
    rate(db, turn, ann)
    assert next_turn(db, bob) is None


def test_a_lease_from_the_future_holds_nothing(db):
    (turn,), (ann, bob) = make_items(db, 1), team(db, 2)
    next_turn(db, ann)
    set_lease(db, turn, ann, -1440)
    assert next_turn(db, bob) == turn


def test_asking_again_keeps_the_lease(db):
    (turn,), (ann, bob) = make_items(db, 1), team(db, 2)
    next_turn(db, ann)
    set_lease(db, turn, ann, 14)
    next_turn(db, ann)
    set_lease(db, turn, bob, 0)
    lease = db.row("SELECT leased_at FROM queue_assignments WHERE person_id = ?", [ann])
    assert lease["leased_at"] > now(datetime.datetime.now(datetime.UTC) - datetime.timedelta(0, 60))


def test_a_skipped_item_goes_to_others_until_skipping_is_undone(db):
    turns, (ann, bob) = make_items(db, 2), team(db, 2)
    next_turn(db, ann)
    queue.skip(db, turns[0], ann, "I don't know this")
    assert next_turn(db, ann) == turns[1]
    assert next_turn(db, bob) == turns[0]
    queue.unskip(db, turns[1], ann)
    rate(db, turns[1], ann)
    assert next_turn(db, ann) is None
    queue.skip(db, turns[0], bob)
    queue.unskip(db, turns[0], ann)
    assert next_turn(db, ann) == turns[0]


def test_all_that_was_skipped_comes_back_at_once(db):
    turns, (me,) = make_items(db, 3), team(db, 1)
    for turn in turns:
        assert next_turn(db, me) == turn
        queue.skip(db, turn, me)
    assert next_turn(db, me) is None
    assert queue.unskip_all(db, me) == 3
    assert next_turn(db, me) in turns


def test_only_what_was_given_and_is_not_rated_can_be_skipped(db):
    (turn,), (ann, bob) = make_items(db, 1), team(db, 2)
    with pytest.raises(NotFoundError, match="has not given you"):
        queue.skip(db, turn, bob)
    next_turn(db, ann)
    with pytest.raises(BadInputError, match="reason"):
        queue.skip(db, turn, ann, "x" * 1001)
    rate(db, turn, ann)
    with pytest.raises(ConflictError, match="undo the rating"):
        queue.skip(db, turn, ann)


def test_an_undone_ranking_brings_the_item_back(db):
    turns, (me,) = make_items(db, 2), team(db, 1)
    next_turn(db, me)
    saved = rate(db, turns[0], me)
    rankings.withdraw_ranking(db, saved.id)
    assert next_turn(db, me) == turns[0]


def test_a_prompt_that_was_rated_in_the_chat_is_rated(db, chat, me):
    first, second = fill_pool(db, 2)
    item = make_item(db, first)
    turn = conversations.create_turn(
        db, chat.id, first.text, None, [conversations.NewReply(0, "v1", 1, {})]
    )
    conversations.finish_reply(
        db, turn.replies[0].id, text="Yes", token_ids=[], logprobs=[], finish_reason="stop",
        state="complete",
    )  # fmt: skip
    rankings.save_ranking(db, turn.id, me.id, {turn.replies[0].id: 1})
    assert queue.remaining(db, me.id, Terms()) == 1
    assert next_turn(db, me.id) is None
    assert [prompt.id for prompt in queue_items.prompts_to_make(db, me.id)] == [second.id]
    other = people.create_person(db, "other")
    assert next_turn(db, other.id) == item


def test_a_deleted_or_changed_prompt_is_not_handed_out(db):
    (me,) = team(db, 1)
    first, second, third = fill_pool(db, 3)
    turns = [make_item(db, prompt) for prompt in (first, second, third)]
    prompts.delete_prompt(db, first.id)
    prompts.change_prompt(db, second.id, text="Another question?")
    prompts.change_prompt(db, third.id, tags=["easy"])
    assert next_turn(db, me) == turns[2]
    prompts.restore_prompt(db, first.id)
    rate(db, turns[2], me)
    assert next_turn(db, me) == turns[0]
    assert [one.text for one in queue_items.prompts_to_make(db, me)] == ["Another question?"]


def test_a_rater_may_read_and_label_what_they_were_given_and_nothing_else(db):
    turns, (ann, bob) = make_items(db, 2), team(db, 2)
    assert next_turn(db, ann) == turns[0]
    turn = conversations.get_turn(db, turns[0], ann)
    reply = conversations.get_reply(db, turn.replies[0].id, ann)
    labels.save_label(db, reply.id, ann, "toxic", True)
    for other, turn_id in ((ann, turns[1]), (bob, turns[0])):
        with pytest.raises(NotFoundError):
            conversations.get_turn(db, turn_id, other)
        with pytest.raises(NotFoundError):
            conversations.get_reply(db, conversations.get_turn(db, turn_id).replies[0].id, other)
    assert conversations.list_conversations(db, ann) == []


def test_erasing_people_leaves_the_queue_but_nothing_of_theirs(db):
    turns, (ann, bob) = make_items(db, 2), team(db, 2)
    keeper = people.find_person(db, "local")
    next_turn(db, ann, TWO)
    next_turn(db, bob, TWO)
    rate(db, turns[0], ann)
    rate(db, turns[0], bob)
    for gone in (ann, keeper.id):
        with db.transaction() as connection:
            connection.execute("DELETE FROM people WHERE id = ?", [gone])
    owners = {row["person_id"] for row in db.rows("SELECT person_id FROM conversations")}
    assert owners == {bob}
    assert [one.person_id for one in rankings.list_rankings(db)] == [bob]
    assert {row["person_id"] for row in db.rows("SELECT * FROM queue_assignments")} == {bob}
    with db.transaction() as connection:
        connection.execute("DELETE FROM people WHERE id = ?", [bob])
    for table in ("conversations", "turns", "queue_items", "queue_assignments", "rankings"):
        assert db.rows(f"SELECT * FROM {table}") == []


def test_stale_items_go_unless_somebody_has_seen_them(db):
    turns, (me,) = make_items(db, 3, version="v1"), team(db, 1)
    shown = next_turn(db, me)
    assert queue_items.drop_stale(db, "v1") == 0
    assert queue_items.drop_stale(db, "v2") == 2
    assert [row["turn_id"] for row in db.rows("SELECT * FROM queue_items")] == [shown]
    assert shown == turns[0]
    ready, missing = queue_items.ready_and_missing(db, [me])
    assert (ready, [one.text for one in missing]) == (0, ["Prompt 2?", "Prompt 3?"])


def test_items_that_cannot_be_rated_go_too(db):
    (me,) = team(db, 1)
    whole, broken, orphan = fill_pool(db, 3)
    make_item(db, whole, states=("complete", "complete", "interrupted"))
    make_item(db, broken, states=("complete", "interrupted", "interrupted"))
    queue_items.new_item_conversation(db, orphan)
    assert next_turn(db, me) is not None
    assert queue_items.drop_stale(db, "v1") == 2
    assert len(db.rows("SELECT * FROM conversations")) == 1


def test_replies_to_a_changed_prompt_are_kept_once_they_are_rated(db):
    (me,) = team(db, 1)
    rated, unrated = fill_pool(db, 2)
    turns = [make_item(db, rated), make_item(db, unrated)]
    next_turn(db, me)
    rate(db, turns[0], me)
    prompts.change_prompt(db, rated.id, text="Else?")
    prompts.change_prompt(db, unrated.id, text="Other?")
    assert queue_items.drop_stale(db, "v1") == 1
    assert len(rankings.ranked_turns(db)) == 1


def test_an_item_is_withdrawn_only_before_it_is_shown(db):
    turns, (me,) = make_items(db, 2), team(db, 1)
    next_turn(db, me)
    assert not queue_items.withdraw_unshown(db, turns[0])
    assert queue_items.withdraw_unshown(db, turns[1])
    rate(db, turns[0], me)
    assert next_turn(db, me) is None


def test_a_prompt_has_one_item_and_only_for_its_own_words(db):
    prompt, other = fill_pool(db, 2)
    turn = make_item(db, prompt)
    with pytest.raises(ConflictError):
        make_item(db, prompt)
    with pytest.raises(ConflictError, match="has been changed"):
        queue_items.add_item(db, turn, other.id)


def test_what_to_make_ahead_is_what_somebody_can_still_rate(db):
    (ann, bob) = team(db, 2)
    all_prompts = fill_pool(db, 4)
    items = [make_item(db, prompt) for prompt in all_prompts[:2]]
    assert next_turn(db, ann, TWO) == items[0]
    rate(db, items[0], ann)
    ready, missing = queue_items.ready_and_missing(db, [ann, bob])
    assert ready == 1  # the second: the first has been shown
    assert [one.id for one in missing] == [one.id for one in all_prompts[2:]]
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    assert queue_items.raters_since(db, since) == [ann]
    assert queue_items.ready_and_missing(db, []) == (0, [])


@settings(max_examples=40, deadline=None)
@given(
    overlap=st.integers(1, 3),
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["next", "rate", "skip", "late", "undo"])),
        max_size=60,
    ),
)
def test_no_item_is_ever_with_more_people_than_it_needs(tmp_path_factory, overlap, steps):
    db = open_database(tmp_path_factory.mktemp("queue") / "x.db")
    make_items(db, 3)
    raters, terms = team(db, 4), Terms(overlap=overlap)
    holding: dict[int, int] = {}  # by person, as this test keeps it
    rated: dict[tuple[int, int], int] = {}
    for index, act in steps:
        person = raters[index]
        held = holding.get(person)
        if act == "next":
            given_turn = next_turn(db, person, terms)
            if given_turn is not None:
                assert (given_turn, person) not in rated
                holding[person] = given_turn
        elif act == "rate" and held is not None:
            rated[held, person] = rate(db, held, person).id
            del holding[person]
        elif act == "skip" and held is not None:
            queue.skip(db, held, person)
            del holding[person]
        elif act == "late" and held is not None:
            set_lease(db, held, person, 60)
            del holding[person]
        elif act == "undo" and (mine := [key for key in rated if key[1] == person]):
            rankings.withdraw_ranking(db, rated.pop(mine[-1]))
            set_lease(db, mine[-1][0], person, 60)
        people_of = Counter([*holding.values(), *(turn for turn, _ in rated)])
        assert max(people_of.values(), default=0) <= overlap
    db.close()


def test_nothing_is_drawn_from_an_empty_pool(db):
    (me,) = team(db, 1)
    assert queue.take(db, me, Terms(), NEVER) is None
    assert queue.remaining(db, me, Terms()) == 0
