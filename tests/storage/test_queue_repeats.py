"""Hidden repeats: they look like any item, and count for nothing but consistency."""

from __future__ import annotations

import dataclasses
import random

import pytest
from rated_queue import ALWAYS, fill_pool, make_item, make_items, next_turn, rate, team

from chatrlhf.loop.exchange.exports import EXPORTS
from storage import conversations, labels, queue_ratings, rankings
from storage.archive import archive, archive_size
from storage.queue import Terms
from storage.queue_repeats import DISTANCE


@pytest.fixture
def rater(db):
    return team(db, 1)[0]


def rate_first(db, person, count):
    """Rate the first items; their turns, oldest first."""
    turns = []
    for _ in range(count):
        turns.append(next_turn(db, person))
        rate(db, turns[-1], person)
    return turns


def original_of(db, turn_id):
    row = db.row("SELECT repeats_turn_id FROM queue_assignments WHERE turn_id = ?", [turn_id])
    return row["repeats_turn_id"]


def test_a_repeat_is_a_shuffled_copy_with_ids_of_its_own(db, rater):
    make_items(db, DISTANCE + 2)
    rated = rate_first(db, rater, DISTANCE + 1)
    repeat = next_turn(db, rater, rng=ALWAYS)
    assert original_of(db, repeat) == rated[0]
    assert repeat not in rated
    before, again = (conversations.get_turn(db, one) for one in (rated[0], repeat))
    assert again.text == before.text
    assert sorted(r.text for r in again.replies) == sorted(r.text for r in before.replies)
    assert [r.text for r in again.replies] != [r.text for r in before.replies]
    assert not {r.id for r in again.replies} & {r.id for r in before.replies}
    assert [r.position for r in again.replies] == [0, 1, 2, 3]
    assert next_turn(db, rater) == repeat  # until it is rated


def test_nothing_is_repeated_too_soon_twice_or_when_nothing_new_is_left(db, rater):
    make_items(db, DISTANCE + 2)
    rate_first(db, rater, DISTANCE)
    new = next_turn(db, rater, rng=ALWAYS)
    assert original_of(db, new) is None
    rate(db, new, rater)
    rate(db, next_turn(db, rater, rng=ALWAYS), rater)  # the repeat of the first
    last = next_turn(db, rater, rng=ALWAYS)
    assert original_of(db, last) is None
    rate(db, last, rater)
    assert next_turn(db, rater, rng=ALWAYS) is None


def test_one_of_ten_is_a_repeat(db, rater):
    make_items(db, 300)
    rng, kinds = random.Random(5), []
    while (turn := next_turn(db, rater, Terms(repeat_share=0.1), rng)) is not None:
        kinds.append(original_of(db, turn) is not None)
        rate(db, turn, rater)
    assert 0.06 < sum(kinds) / len(kinds) < 0.14
    assert not any(kinds[:DISTANCE])
    assert next_turn(db, rater, Terms(repeat_share=0.0), rng) is None


def test_what_ordered_nothing_is_not_repeated(db, rater):
    turns = make_items(db, DISTANCE + 4)
    next_turn(db, rater)
    rate(db, turns[0], rater, (1, 1, 1, 1))
    next_turn(db, rater)
    rate(db, turns[1], rater, (1, 1, 1, 1), all_bad=True)
    rate_first(db, rater, DISTANCE)
    assert original_of(db, next_turn(db, rater, rng=ALWAYS)) is None


def test_interrupted_replies_are_not_copied_and_the_choice_is(db, rater):
    first, *rest = fill_pool(db, DISTANCE + 2)
    turn = make_item(db, first, states=("complete", "interrupted", "complete"))
    with db.transaction() as connection:
        connection.execute("INSERT INTO choices VALUES (?, 'best', 8, 'v1', '[]', 'n')", [turn])
    for prompt in rest:
        make_item(db, prompt)
    next_turn(db, rater)
    whole = [r for r in conversations.get_turn(db, turn).replies if r.state == "complete"]
    rankings.save_ranking(db, turn, rater, {whole[0].id: 1, whole[1].id: 2})
    rate_first(db, rater, DISTANCE)
    repeat = conversations.get_turn(db, next_turn(db, rater, rng=ALWAYS))
    assert [r.text for r in repeat.replies] == [whole[1].text, whole[0].text]
    assert repeat.choice == conversations.get_turn(db, turn).choice


@pytest.fixture
def repeated(db, rater):
    """The turns of an item and of its repeat; the first was rated 1>2>3>4, the repeat 1>3>2>4."""
    make_items(db, DISTANCE + 2)
    rated = rate_first(db, rater, DISTANCE + 1)
    repeat = next_turn(db, rater, rng=ALWAYS)
    return rated[0], repeat


def test_a_repeat_is_no_training_data(db, rater, repeated):
    _, repeat = repeated
    before = (rankings.count_new(db, 0), rankings.newest_id(db), rankings.ranked_turns(db))
    exported = [list(EXPORTS[name].parts(db, None)) for name in ("trl", "jsonl")]
    rate(db, repeat, rater, (1, 3, 2, 4))
    labels.save_label(db, conversations.get_turn(db, repeat).replies[0].id, rater, "toxic", True)
    after = (rankings.count_new(db, 0), rankings.newest_id(db), rankings.ranked_turns(db))
    assert after == before
    assert labels.labelled_replies(db) == []
    assert [list(EXPORTS[name].parts(db, None)) for name in ("trl", "jsonl")] == exported
    assert EXPORTS["trl"].records(db, None) == DISTANCE + 1


def test_the_two_orders_of_a_repeat_are_compared_reply_by_reply(db, rater, repeated):
    _, repeat = repeated
    assert queue_ratings.repeated_rankings(db) == []
    rate(db, repeat, rater, (1, 3, 2, 4))
    (found,) = queue_ratings.repeated_rankings(db, rater)
    assert sorted(zip(found.first, found.again, strict=True)) == [(1, 1), (2, 3), (3, 2), (4, 4)]
    assert queue_ratings.repeated_rankings(db, rater + 1) == []


def test_a_repeat_is_erased_with_its_original_and_with_its_rater(db, rater, repeated):
    original, repeat = repeated
    rate(db, repeat, rater)
    conversation = conversations.get_turn(db, original).conversation_id
    conversations.delete_conversation(db, conversation)
    assert db.rows("SELECT 1 FROM turns WHERE id IN (?, ?)", [original, repeat]) == []
    assert db.rows("SELECT 1 FROM conversations WHERE origin = 'repeat'") == []
    second = next_turn(db, rater, rng=ALWAYS)
    if original_of(db, second) is None:
        rate(db, second, rater)
    with db.transaction() as connection:
        connection.execute("DELETE FROM people WHERE id = ?", [rater])
    assert db.rows("SELECT 1 FROM conversations WHERE origin = 'repeat'") == []
    assert db.rows("PRAGMA foreign_key_check") == []


def test_the_archive_holds_what_was_rated_under_the_name_that_asks(db, rater, repeated):
    _, repeat = repeated
    rate(db, repeat, rater)
    everything = list(archive(db))
    assert len(everything) == archive_size(db) == DISTANCE + 1
    assert {one.person for one in everything} == {"local"}
    mine = list(archive(db, rater))
    assert len(mine) == archive_size(db, rater) == DISTANCE + 1
    assert {one.person for one in mine} == {"rater 1"}
    assert {dataclasses.replace(one, person="local").id for one in mine} == {
        one.id for one in everything
    }
    assert list(archive(db, db.row("SELECT id FROM people WHERE name = 'local'")["id"])) == []
