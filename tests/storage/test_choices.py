"""What the replies of a turn were chosen from, and why each is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatrlhf.errors import BadInputError, NotFoundError
from storage import migrations
from storage.choices import finish_choice
from storage.conversations import (
    NewReply,
    create_conversation,
    create_turn,
    delete_turn,
    finish_reply,
    get_turn,
    list_turns,
)
from storage.database import Database, open_database
from storage.people import ensure_local_person
from storage.records import Choice, Chosen

ENDING = {"text": "a", "token_ids": [1], "logprobs": [-0.5]}
ENDING |= {"finish_reason": "stop", "state": "complete"}


def new_turn(db: Database, chat, choice: Choice | None = None):
    rows = [NewReply(position, "v1", 1, {}) for position in range(2)]
    return create_turn(db, chat.id, "Hello", None, rows, choice)


def test_a_choice_is_kept_with_its_turn(db: Database, chat) -> None:
    asked = Choice("best", 4)
    turn = new_turn(db, chat, asked)
    plain = new_turn(db, chat)
    assert turn.choice == asked
    finish_choice(db, turn.id, version="v1", scores=[0.5, -1.25, 3, 0.0], note="a note")
    ended = Choice("best", 4, "v1", (0.5, -1.25, 3.0, 0.0), "a note")
    assert get_turn(db, turn.id).choice == ended
    assert [one.choice for one in list_turns(db, chat.id)] == [ended, None]
    assert get_turn(db, plain.id).choice is None


def test_a_reply_keeps_why_it_is_shown(db: Database, chat) -> None:
    first, second = new_turn(db, chat, Choice("best", 8)).replies
    assert (first.candidate, second.candidate) == (0, 1)
    done = finish_reply(db, first.id, **ENDING, chosen=Chosen(6, "best", 1.0, -2.5))
    assert (done.candidate, done.slot_type, done.propensity, done.score) == (6, "best", 1.0, -2.5)
    other = finish_reply(db, second.id, **ENDING, chosen=Chosen(0, "random", 0.125))
    assert (other.slot_type, other.propensity, other.score) == ("random", 0.125, None)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (Chosen(0, " ", 1.0), "the slot type is empty"),
        (Chosen(0, "best", 0.0), "the propensity is 0.0"),
        (Chosen(0, "best", 1.5), "the propensity is 1.5"),
        (Chosen(0, "best", float("nan")), "the propensity is nan"),
        (Chosen(0, "best", 1.0, float("inf")), "the score is inf"),
        (Chosen(True, "best", 1.0), "the candidate is True"),
    ],
)
def test_values_that_cannot_be_leave_the_reply_streaming(db: Database, chat, chosen, words) -> None:
    turn = new_turn(db, chat)
    with pytest.raises(BadInputError, match=words):
        finish_reply(db, turn.replies[0].id, **ENDING, chosen=chosen)
    assert get_turn(db, turn.id) == turn


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_are_numbers(db: Database, chat, score) -> None:
    with pytest.raises(BadInputError, match="a score is"):
        new_turn(db, chat, Choice("best", 2, "v1", (0.0, score)))
    assert list_turns(db, chat.id) == ()
    turn = new_turn(db, chat, Choice("best", 2))
    with pytest.raises(BadInputError, match="a score is"):
        finish_choice(db, turn.id, version="v1", scores=[score], note="")
    assert get_turn(db, turn.id).choice == Choice("best", 2)


def test_an_erased_turn_has_no_choice_left(db: Database, chat) -> None:
    turn = new_turn(db, chat, Choice("best", 4))
    delete_turn(db, turn.id)
    assert db.rows("SELECT * FROM choices") == []
    with pytest.raises(NotFoundError, match=f"no choice of turn {turn.id}"):
        finish_choice(db, turn.id, version="v1", scores=[], note="")


def test_replies_of_an_older_schema_are_those_of_their_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old" / "chatrlhf.db"
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:2])
        old = open_database(path)
        chat = create_conversation(old, ensure_local_person(old).id)
        with old.transaction() as connection:
            connection.execute(
                "INSERT INTO turns (conversation_id, text, created_at) VALUES (?, 'Hello', 'now')",
                [chat.id],
            )
            for position in range(2):
                connection.execute(
                    "INSERT INTO replies (turn_id, position, text, text_sha256, token_ids, "
                    "logprobs, version, seed, sampling, state, finish_reason, slot_type, "
                    "created_at) VALUES (1, ?, 'a', ?, x'', x'', 'v0', 3, '{}', 'complete', "
                    "'stop', 'policy', 'now')",
                    [position, "0" * 64],
                )
        old.close()
    db = open_database(path)
    (turn,) = list_turns(db, chat.id)
    assert turn.choice is None
    assert [(one.position, one.candidate) for one in turn.replies] == [(0, 0), (1, 1)]
    assert {(one.slot_type, one.score, one.propensity) for one in turn.replies} == {
        ("policy", None, None)
    }
    db.close()
