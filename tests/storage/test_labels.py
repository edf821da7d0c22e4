from __future__ import annotations

import pytest

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage.conversations import create_conversation
from storage.database import Database
from storage.labels import labelled_replies, labels_of, save_label
from storage.people import create_person
from storage.records import Label, Message


def test_a_label_is_the_persons_last_word(db: Database, me, make_turn) -> None:
    other = create_person(db, "other")
    turn = make_turn(("complete", "interrupted"))
    reply, broken = (reply.id for reply in turn.replies)
    save_label(db, reply, me.id, "toxic", True)
    save_label(db, reply, me.id, "off-topic", True)
    save_label(db, reply, other.id, "toxic", True)
    save_label(db, reply, me.id, "toxic", False)
    assert labels_of(db, reply) == [
        Label(reply, me.id, "off-topic", True),
        Label(reply, me.id, "toxic", False),
        Label(reply, other.id, "toxic", True),
    ]
    with pytest.raises(ConflictError, match="not finished"):
        save_label(db, broken, me.id, "toxic", True)
    with pytest.raises(NotFoundError, match="no reply 99"):
        save_label(db, 99, me.id, "toxic", True)
    with pytest.raises(NotFoundError, match="no person 99"):
        save_label(db, reply, 99, "toxic", True)


@pytest.mark.parametrize("label", ["", "Toxic", "1st", "a b", "x" * 41, "a\n", "é"])
def test_labels_are_short_plain_words(label: str, db: Database, me, make_turn) -> None:
    with pytest.raises(BadInputError, match="label"):
        save_label(db, make_turn().replies[0].id, me.id, label, True)


def test_labelled_replies_come_with_their_context_and_all_that_people_say(
    db: Database, me, make_turn
) -> None:
    other = create_person(db, "other")
    chat = create_conversation(db, me.id, "Be brief.")
    first = make_turn(("complete",) * 2, conversation_id=chat.id, text="One")
    parent = first.replies[1]
    second = make_turn(
        ("complete", "cancelled"), conversation_id=chat.id, text="Two", parent=parent.id
    )
    done, cut = second.replies
    save_label(db, cut.id, me.id, "toxic", True)
    save_label(db, done.id, other.id, "good", True)
    save_label(db, done.id, me.id, "good", False)
    finished, unfinished = labelled_replies(db)
    assert (finished.reply_id, unfinished.reply_id) == (done.id, cut.id)
    assert finished.messages == (
        Message("system", "Be brief."),
        Message("user", "One"),
        Message("assistant", parent.text),
        Message("user", "Two"),
    )
    assert (finished.text, finished.finished) == (done.text, True)
    assert not unfinished.finished
    assert finished.labels == (
        Label(done.id, me.id, "good", False),
        Label(done.id, other.id, "good", True),
    )
    assert unfinished.labels == (Label(cut.id, me.id, "toxic", True),)


def test_without_labels_there_are_no_labelled_replies(db: Database, make_turn) -> None:
    make_turn()
    assert labelled_replies(db) == []
