"""Turns: rows made when the engine took the request, finished whatever the readers do."""

from __future__ import annotations

import threading

import pytest
from fake_engine import FakeEngine
from waiting import ended, wait_for

from chatrlhf.engine.requests import Failed, Sampling
from chatrlhf.errors import (
    ConflictError,
    ContextOverflowError,
    NotFoundError,
    OverloadedError,
    StorageError,
)
from chatrlhf.loop.reply_saver import ReplySaver
from chatrlhf.loop.turn_events import (
    NewTurn,
    ReplyDelta,
    ReplyDone,
    TurnDone,
    TurnFailed,
    TurnStarted,
)
from chatrlhf.loop.turns import Turns
from storage import conversations, people, rankings


@pytest.fixture
def engine():
    fake = FakeEngine()
    fake.load_version("v0", None)
    fake.load_version("v1", None)
    fake.set_live("v0")
    yield fake
    fake.stop()


@pytest.fixture
def turns(db, engine):
    service = Turns(db, engine, concurrent_turns=8)
    yield service
    service.stop(grace_seconds=0.0)


@pytest.fixture
def conversation(db):
    person = people.ensure_local_person(db)
    return conversations.create_conversation(db, person.id, system_prompt="Be brief.").id


def asked(text="Hello", **more) -> NewTurn:
    given = {"replies": 2, "seed": 5, "sampling": Sampling(max_new_tokens=9), **more}
    return NewTurn(text=text, **given)


def test_a_turn_ends_with_the_rows_that_the_engine_gave(db, turns, conversation):
    live = turns.start(conversation, asked())
    ended(live)
    turn = conversations.get_turn(db, live.turn.id)
    assert turn.text == "Hello"
    assert [reply.position for reply in turn.replies] == [0, 1]
    assert [reply.text for reply in turn.replies] == [
        "word0 word1 word2 0",
        "word0 word1 word2 1",
    ]
    assert {reply.state for reply in turn.replies} == {"complete"}
    assert {reply.finish_reason for reply in turn.replies} == {"stop"}
    assert {reply.version for reply in turn.replies} == {"v0"}
    assert {reply.seed for reply in turn.replies} == {5}
    assert turn.replies[0].token_ids == (0, 1, 2, 3)
    assert turn.replies[0].sampling["max_new_tokens"] == 9


def test_the_log_has_start_text_ends_and_the_end_of_the_turn(turns, conversation):
    events = ended(turns.start(conversation, asked()))
    assert isinstance(events[0], TurnStarted)
    assert isinstance(events[-1], TurnDone)
    for reply in events[0].turn.replies:
        deltas = [e.text for e in events if isinstance(e, ReplyDelta) and e.reply_id == reply.id]
        done = [e for e in events if isinstance(e, ReplyDone) and e.reply_id == reply.id]
        assert "".join(deltas) == done[0].text
        assert len(done) == 1


def test_the_engine_gets_the_conversation_so_far(engine, db, turns, conversation):
    first = turns.start(conversation, asked())
    ended(first)
    best, other = (reply.id for reply in first.turn.replies)
    person = people.ensure_local_person(db)
    rankings.save_ranking(db, first.turn.id, person.id, {best: 2, other: 1})
    ended(turns.start(conversation, asked("And then?")))
    sent = [(message.role, message.content) for message in engine.requests[-1].messages]
    assert sent == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "word0 word1 word2 1"),
        ("user", "And then?"),
    ]


def test_a_named_parent_makes_a_branch(engine, turns, conversation):
    first = turns.start(conversation, asked())
    ended(first)
    parent = first.turn.replies[0].id
    second = turns.start(conversation, asked("Why?", parent_reply_id=parent))
    ended(second)
    assert second.turn.parent_reply_id == parent
    assert engine.requests[-1].messages[2].content == "word0 word1 word2 0"


def test_a_refused_request_leaves_no_row(engine, db, turns, conversation):
    engine.refuse = ContextOverflowError("It is too long.")
    with pytest.raises(ContextOverflowError):
        turns.start(conversation, asked())
    assert conversations.list_turns(db, conversation) == ()


def test_a_request_refused_before_its_first_token_leaves_no_row(engine, db, turns, conversation):
    engine.fail_before_start = Failed("overloaded", "No memory is free.", 503)
    events = ended(turns.start(conversation, asked()))
    assert events[-1] == TurnFailed("overloaded", "No memory is free.", 503)
    assert not any(isinstance(event, TurnDone) for event in events)
    assert conversations.list_turns(db, conversation) == ()


def test_a_request_that_fails_later_keeps_its_text_as_interrupted(engine, db, turns, conversation):
    engine.fail_after_start = Failed("internal", "The model broke.")
    live = turns.start(conversation, asked())
    events = ended(live)
    assert TurnFailed("internal", "The model broke.", 500) in events
    replies = conversations.get_turn(db, live.turn.id).replies
    assert [reply.text for reply in replies] == ["word0 ", "word0 "]
    assert {reply.state for reply in replies} == {"interrupted"}


def test_a_second_prompt_waits_until_the_replies_have_ended(engine, turns, conversation):
    engine.go.clear()
    first = turns.start(conversation, asked())
    with pytest.raises(ConflictError):
        turns.start(conversation, asked("Too early"))
    with pytest.raises(ConflictError):
        turns.start(conversation, asked(parent_reply_id=first.turn.replies[0].id))
    engine.go.set()
    ended(first)
    assert len(engine.requests) == 1


def test_an_unknown_conversation_or_parent_is_not_found(turns, conversation):
    with pytest.raises(NotFoundError):
        turns.start(999, asked())
    with pytest.raises(NotFoundError):
        turns.start(conversation, asked(parent_reply_id=999))


def test_one_reply_can_be_cut_while_the_others_go_on(engine, db, turns, conversation):
    engine.go.clear()
    live = turns.start(conversation, asked())
    cut, kept = live.turn.replies
    wait_for(lambda: live.texts.get(0), 10.0)
    assert turns.cancel(live.turn.id, cut.id)
    engine.go.set()
    ended(live)
    replies = {reply.id: reply for reply in conversations.get_turn(db, live.turn.id).replies}
    assert replies[cut.id].state == "cancelled"
    assert replies[cut.id].text == "word0 "
    assert replies[kept.id].state == "complete"
    assert not turns.cancel(live.turn.id, cut.id)


def test_a_turn_that_can_be_read_can_be_cut(db, engine, turns, conversation, monkeypatch):
    engine.go.clear()
    cut, plain = [], conversations.create_turn

    def read_and_cut_at_once(*args):
        turn = plain(*args)
        reader = threading.Thread(target=lambda: cut.append(turns.cancel(turn.id)), daemon=True)
        reader.start()
        reader.join(0.2)
        return turn

    monkeypatch.setattr(conversations, "create_turn", read_and_cut_at_once)
    live = turns.start(conversation, asked())
    wait_for(lambda: cut, 10.0)
    engine.go.set()
    ended(live)
    assert cut == [True]
    turn = conversations.get_turn(db, live.turn.id)
    assert {reply.state for reply in turn.replies} == {"cancelled"}


def test_stopping_interrupts_what_streams_and_refuses_what_comes(engine, db, turns, conversation):
    engine.go.clear()
    live = turns.start(conversation, asked())
    wait_for(lambda: live.texts.get(1), 10.0)
    turns.stop(grace_seconds=0.05)
    replies = conversations.get_turn(db, live.turn.id).replies
    assert {reply.state for reply in replies} == {"interrupted"}
    assert [reply.text for reply in replies] == ["word0 ", "word0 "]
    with pytest.raises(OverloadedError):
        turns.start(conversation, asked())


def test_a_duel_stores_which_version_gave_which_reply(db, turns, conversation):
    live = turns.start(conversation, asked(versions=("v1", "v0")))
    ended(live)
    replies = conversations.get_turn(db, live.turn.id).replies
    assert [reply.version for reply in replies] == ["v1", "v0"]


def test_erasing_the_conversation_ends_its_turn_without_an_uproar(
    engine, db, turns, conversation, caplog
):
    engine.go.clear()
    live = turns.start(conversation, asked())
    wait_for(lambda: live.texts.get(1), 10.0)
    turns.cancel_conversation(conversation)
    conversations.delete_conversation(db, conversation)
    engine.go.set()
    ended(live)
    assert not caplog.records


def test_a_reply_that_meets_a_full_disk_is_stored_once_there_is_room(
    engine, db, conversation, monkeypatch
):
    turns = Turns(db, engine, concurrent_turns=2, saver=ReplySaver(db, pauses_seconds=(0.0,)))

    def full(*_args, **_kwargs):
        raise StorageError("not saved: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(conversations, "finish_reply", full)
        first = turns.start(conversation, asked())
        events = ended(first)
    failed = [event for event in events if isinstance(event, TurnFailed)]
    assert [event.code for event in failed] == ["not_saved", "not_saved"]
    assert not any(isinstance(event, ReplyDone) for event in events)

    ended(turns.start(conversation, asked("Next")))
    replies = conversations.get_turn(db, first.turn.id).replies
    assert [reply.text for reply in replies] == ["word0 word1 word2 0", "word0 word1 word2 1"]
    assert {reply.state for reply in replies} == {"complete"}
    turns.stop()


def test_a_late_reader_reads_from_the_first_event(turns, conversation):
    live = turns.start(conversation, asked())
    all_events = ended(live)
    assert live.log.since(0) == (all_events, True)
    assert live.log.since(2) == (all_events[2:], True)
