"""Best of N in a turn, with the fake engine: what is asked, shown, stored and told."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine
from waiting import ended, wait_for

from chatrlhf.engine.requests import Failed, Sampling
from chatrlhf.errors import BadInputError, ConflictError, StorageError
from chatrlhf.loop.reply_saver import ReplySaver
from chatrlhf.loop.rewards import Rewards
from chatrlhf.loop.turn_events import (
    NewTurn,
    ReplyDelta,
    ReplyDone,
    TurnChoosing,
    TurnDone,
    TurnFailed,
    TurnStarted,
)
from chatrlhf.loop.turns import Turns
from storage import conversations, people
from storage.records import Choice


@pytest.fixture
def engine():
    """``v1`` has a reward model and is live; the last digit of a text is its row."""
    fake = FakeEngine()
    for name in ("v0", "v1"):
        fake.load_version(name, None)
    fake.set_live("v1")
    fake.score = lambda text: [0.5, -1.0, 3.0, 2.0, -2.0, 1.0, 0.0, 2.5][int(text[-1])]
    yield fake
    fake.stop()


@pytest.fixture
def rewards(engine, tmp_path):
    return Rewards(engine, lambda name: tmp_path / name, longest=99)


@pytest.fixture
def turns(db, engine, rewards):
    service = Turns(db, engine, concurrent_turns=8, rewards=rewards)
    yield service
    service.stop(grace_seconds=0.0)


@pytest.fixture
def conversation(db):
    person = people.ensure_local_person(db)
    return conversations.create_conversation(db, person.id).id


def asked(text="Hello", **more) -> NewTurn:
    given = {"replies": 3, "candidates": 8, "choose": "best", "seed": 5}
    return NewTurn(text=text, **{**given, "sampling": Sampling(max_new_tokens=9), **more})


def stored(db, live):
    return conversations.get_turn(db, live.turn.id)


def test_the_best_are_stored_with_their_scores_and_the_choice(engine, db, turns, conversation):
    live = turns.start(conversation, asked())
    ended(live)
    assert engine.requests[-1].replies == 8
    turn = stored(db, live)
    assert turn.choice == Choice("best", 8, "v1", (0.5, -1.0, 3.0, 2.0, -2.0, 1.0, 0.0, 2.5))
    assert {(reply.candidate, reply.score) for reply in turn.replies} == {
        (2, 3.0),
        (7, 2.5),
        (3, 2.0),
    }
    for reply in turn.replies:
        assert reply.text == f"word0 word1 word2 {reply.candidate}"
        assert (reply.slot_type, reply.propensity) == ("best", 1.0)
        assert (reply.state, reply.finish_reason, reply.version) == ("complete", "stop", "v1")
        assert reply.token_ids == (0, 1, 2, 3)
        assert len(reply.logprobs) == 4


def test_the_reward_model_reads_the_conversation_and_all_candidates(engine, turns, conversation):
    ended(turns.start(conversation, asked("Hi")))
    ((version, messages, longest),) = engine.scored
    assert (version, longest) == ("v1", 99)
    assert [(message.role, message.content) for message in messages] == [("user", "Hi")]
    assert list(engine.finished) == [True] * 8


def test_best_and_random_names_the_slots(db, turns, conversation):
    live = turns.start(conversation, asked(choose="best-and-random"))
    ended(live)
    slots = {reply.candidate: reply for reply in stored(db, live).replies}
    assert (slots[2].slot_type, slots[2].propensity) == ("best", 1.0)
    others = [reply for row, reply in slots.items() if row != 2]
    assert {(one.slot_type, one.propensity) for one in others} == {("random", 2 / 7)}
    scores = [0.5, -1.0, 3.0, 2.0, -2.0, 1.0, 0.0, 2.5]
    assert all(one.score == scores[one.candidate] for one in others)


def test_the_same_seed_shows_the_same_and_positions_change_with_it(db, turns, conversation):
    def order(seed):
        live = turns.start(conversation, asked(seed=seed))
        ended(live)
        return [reply.candidate for reply in stored(db, live).replies]

    orders = [order(seed) for seed in range(8)]
    assert orders == [order(seed) for seed in range(8)]
    assert {tuple(sorted(one)) for one in orders} == {(2, 3, 7)}
    assert len({tuple(one) for one in orders}) > 2


def test_nothing_of_a_reply_is_told_before_the_choice(turns, conversation):
    events = ended(turns.start(conversation, asked()))
    assert isinstance(events[0], TurnStarted)
    assert isinstance(events[-1], TurnDone)
    progress = [event for event in events if isinstance(event, TurnChoosing)]
    assert events[1 : len(progress) + 1] == progress
    assert [event.written for event in progress] == [*range(9), 8]
    assert [event.is_scoring for event in progress] == [False] * 9 + [True]
    assert {(event.candidates, event.replies) for event in progress} == {(8, 3)}
    for reply in events[0].turn.replies:
        told = [e for e in events if isinstance(e, ReplyDelta) and e.reply_id == reply.id]
        done = [e for e in events if isinstance(e, ReplyDone) and e.reply_id == reply.id]
        assert [event.text for event in told] == [done[0].text]
        assert done[0].position == reply.position


def test_by_default_nothing_is_chosen_scored_or_stored(engine, db, turns, conversation):
    for more in ({"candidates": 0}, {"candidates": 3}):
        live = turns.start(conversation, asked(**more))
        events = ended(live)
        assert not any(isinstance(event, TurnChoosing) for event in events)
        turn = stored(db, live)
        assert turn.choice is None
        for reply in turn.replies:
            assert (reply.slot_type, reply.candidate) == ("policy", reply.position)
            assert reply.score is reply.propensity is None
    assert [request.replies for request in engine.requests] == [3, 3]
    assert engine.scored == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [({}, "v0 has no reward model."), ({"sampling": Sampling(temperature=0.0)}, "temperature 0")],
)
def test_without_a_use_for_candidates_replies_stream_and_the_turn_says_why(
    engine, db, turns, conversation, more, reason
):
    engine.set_live("v1" if more else "v0")
    live = turns.start(conversation, asked(**more))
    events = ended(live)
    assert engine.requests[-1].replies == 3
    assert not any(isinstance(event, TurnChoosing) for event in events)
    assert sum(isinstance(event, ReplyDelta) for event in events) > 3
    turn = stored(db, live)
    assert reason in turn.choice.note
    assert turn.choice.note.endswith("All replies are shown as they were drawn.")
    assert (turn.choice.policy, turn.choice.candidates, turn.choice.scores) == ("best", 3, ())
    assert {reply.slot_type for reply in turn.replies} == {"policy"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConflictError("v1 was retired."), "v1 was retired."),
        (RuntimeError("a bug"), "RuntimeError; the log has the details"),
    ],
)
def test_a_scoring_that_fails_shows_random_replies_and_says_why(
    engine, db, turns, conversation, caplog, error, words
):
    engine.fail_scoring = error
    live = turns.start(conversation, asked())
    events = ended(live)
    assert not any(isinstance(event, TurnFailed) for event in events)
    turn = stored(db, live)
    assert words in turn.choice.note
    assert turn.choice.note.endswith("picked at random.")
    assert (turn.choice.version, turn.choice.scores) == ("", ())
    for reply in turn.replies:
        assert (reply.state, reply.slot_type, reply.score) == ("complete", "random", None)
        assert reply.propensity == 3 / 8
        assert reply.text == f"word0 word1 word2 {reply.candidate}"
    assert "candidates could not be scored" in caplog.text


def test_scores_that_are_no_numbers_are_not_believed(engine, db, turns, conversation):
    engine.score = lambda _text: float("nan")
    live = turns.start(conversation, asked())
    ended(live)
    turn = stored(db, live)
    assert "gives no number" in turn.choice.note
    assert {(reply.slot_type, reply.score) for reply in turn.replies} == {("random", None)}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"candidates": 2}, "candidates is 2, fewer than the 3 replies"),
        ({"versions": ("v0", "v1", "v0")}, "A duel"),
    ],
)
def test_candidates_that_cannot_be_are_refused_without_a_row(
    engine, db, turns, conversation, more, words
):
    with pytest.raises(BadInputError, match=words):
        turns.start(conversation, asked(**more))
    assert engine.requests == []
    assert conversations.list_turns(db, conversation) == ()


def test_stopping_shows_what_is_written_without_waiting_for_scores(engine, db, turns, conversation):
    engine.go.clear()
    live = turns.start(conversation, asked())
    wait_for(lambda: len(live.texts) == 8, 10.0)
    assert not turns.cancel(live.turn.id, live.turn.replies[0].id)  # none is shown yet
    assert turns.cancel(live.turn.id)
    engine.go.set()
    ended(live)
    turn = stored(db, live)
    assert engine.scored == []
    assert {(reply.state, reply.text) for reply in turn.replies} == {("cancelled", "word0 ")}
    assert "Stopped before all 8 candidates" in turn.choice.note


def test_when_stopped_whole_candidates_go_before_cut_ones(engine, db, turns, conversation):
    engine.go.clear()
    live = turns.start(conversation, asked())
    wait_for(lambda: len(live.texts) == 8, 10.0)
    for row in (0, 1, 3, 4, 6, 7):
        live.stream.cancel(row)
    engine.go.set()
    ended(live)
    states = sorted((reply.state, reply.candidate) for reply in stored(db, live).replies)
    assert states[1:] == [("complete", 2), ("complete", 5)]
    assert states[0][0] == "cancelled"


def test_a_server_that_stops_leaves_interrupted_replies(engine, db, turns, conversation):
    engine.go.clear()
    live = turns.start(conversation, asked())
    wait_for(lambda: len(live.texts) == 8, 10.0)
    turns.stop(grace_seconds=0.05)
    assert {(reply.state, reply.text) for reply in stored(db, live).replies} == {
        ("interrupted", "word0 ")
    }


def test_a_failure_while_candidates_are_written_keeps_the_text(engine, db, turns, conversation):
    engine.fail_after_start = Failed("internal", "The model broke.")
    live = turns.start(conversation, asked())
    assert TurnFailed("internal", "The model broke.", 500) in ended(live)
    assert {reply.state for reply in stored(db, live).replies} == {"interrupted"}
    assert engine.scored == []


def test_erasing_the_conversation_while_candidates_are_written_is_quiet(
    engine, db, turns, conversation, caplog
):
    engine.go.clear()
    live = turns.start(conversation, asked())
    wait_for(lambda: len(live.texts) == 8, 10.0)
    turns.cancel_conversation(conversation)
    conversations.delete_conversation(db, conversation)
    engine.go.set()
    ended(live)
    assert not caplog.records
    assert db.rows("SELECT * FROM choices") == []


def test_a_full_disk_costs_neither_the_replies_nor_why_they_are_shown(
    engine, db, rewards, conversation, monkeypatch
):
    saver = ReplySaver(db, pauses_seconds=(0.0,))
    turns = Turns(db, engine, concurrent_turns=2, rewards=rewards, saver=saver)

    def full(*_args, **_kwargs):
        raise StorageError("not saved: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(conversations, "finish_reply", full)
        patch.setattr(conversations, "finish_choice", full)
        live = turns.start(conversation, asked())
        failed = [event for event in ended(live) if isinstance(event, TurnFailed)]
    assert [event.code for event in failed] == ["not_saved"] * 3
    ended(turns.start(conversation, asked("Next")))
    turn = stored(db, live)
    assert {(reply.candidate, reply.score) for reply in turn.replies} == {
        (2, 3.0),
        (7, 2.5),
        (3, 2.0),
    }
    turns.stop()


def test_without_rewards_the_turn_says_so(db, engine, conversation):
    turns = Turns(db, engine, concurrent_turns=2)
    live = turns.start(conversation, asked())
    ended(live)
    assert "This server scores no replies." in stored(db, live).choice.note
    turns.stop()


def test_files_that_cannot_be_read_leave_the_replies_as_drawn(db, engine, conversation):
    def lost(_name):
        raise OSError("no such folder")

    turns = Turns(db, engine, concurrent_turns=2, rewards=Rewards(engine, lost, longest=9))
    live = turns.start(conversation, asked())
    ended(live)
    turn = stored(db, live)
    assert "The reward model of v1 cannot be read (OSError)." in turn.choice.note
    assert {reply.state for reply in turn.replies} == {"complete"}
    turns.stop()
