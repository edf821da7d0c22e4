"""The next prompt to rate."""

from __future__ import annotations

import pytest

from storage import conversations, people, prompts, rankings
from storage.database import open_database
from storage.queue import next_unranked


@pytest.fixture
def pool(tmp_path):
    db = open_database(tmp_path / "chat.db")
    prompts.add_prompts(db, [("One?", "", ["a"]), ("Two?", "Be brief.", []), ("Three?", "", [])])
    yield db
    db.close()


def rank_a_turn(db, person, text):
    conversation = conversations.create_conversation(db, person.id)
    row = conversations.NewReply(position=0, version="v0", seed=1, sampling={})
    turn = conversations.create_turn(db, conversation.id, text, None, [row])
    reply = turn.replies[0].id
    conversations.finish_reply(
        db, reply, text="Yes", token_ids=[], logprobs=[], finish_reason="stop", state="complete"
    )
    return rankings.save_ranking(db, turn.id, person.id, {reply: 1})


def test_prompts_come_in_order_until_each_is_ranked(pool):
    person = people.ensure_local_person(pool)
    for left, text in ((3, "One?"), (2, "Two?"), (1, "Three?")):
        prompt, remaining = next_unranked(pool, person.id)
        assert (prompt.text, remaining) == (text, left)
        rank_a_turn(pool, person, text)
    assert next_unranked(pool, person.id) == (None, 0)


def test_an_undone_ranking_and_another_persons_do_not_count(pool):
    person, other = people.ensure_local_person(pool), people.create_person(pool, "other")
    rank_a_turn(pool, other, "One?")
    undone = rank_a_turn(pool, person, "One?")
    rankings.withdraw_ranking(pool, undone.id)
    prompt, remaining = next_unranked(pool, person.id)
    assert (prompt.text, prompt.tags, remaining) == ("One?", ("a",), 3)
