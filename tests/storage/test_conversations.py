from __future__ import annotations

import hashlib

import pytest

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage import runs, versions
from storage.continuation import choose_parent
from storage.conversations import (
    NewReply,
    create_conversation,
    create_turn,
    damaged_replies,
    delete_conversation,
    delete_turn,
    finish_reply,
    get_conversation,
    get_reply,
    get_turn,
    interrupt_streaming,
    list_conversations,
    list_turns,
    messages_before,
    rename_conversation,
    set_reply_versions,
)
from storage.database import Database
from storage.demonstrations import save_demonstration
from storage.labels import save_label
from storage.people import create_person
from storage.rankings import save_ranking
from storage.records import Message


def test_a_conversation_is_kept_and_seen_by_its_person_only(db: Database, me) -> None:
    other = create_person(db, "other")
    chat = create_conversation(db, me.id, "Be brief.", "A title")
    assert get_conversation(db, chat.id) == get_conversation(db, chat.id, me.id) == chat
    assert (chat.system_prompt, chat.title) == ("Be brief.", "A title")
    newer = create_conversation(db, me.id)
    assert [item.id for item in list_conversations(db, me.id)] == [newer.id, chat.id]
    assert list_conversations(db, other.id) == []
    for refused in (
        lambda: get_conversation(db, chat.id, other.id),
        lambda: rename_conversation(db, chat.id, "x", other.id),
        lambda: delete_conversation(db, chat.id, other.id),
    ):
        with pytest.raises(NotFoundError, match=f"no conversation {chat.id}"):
            refused()
    assert rename_conversation(db, chat.id, "Other").title == "Other"


def test_a_conversation_needs_a_person(db: Database) -> None:
    with pytest.raises(NotFoundError, match="no person 5"):
        create_conversation(db, 5)


def test_a_turn_keeps_all_that_makes_its_replies_again(db: Database, chat) -> None:
    text = "  שלום 👩\u200d👩\u200d👧 e\u0301\r\n"
    rows = [
        NewReply(1, "", -(2**63), {"temperature": 0.9}, "duel"),
        NewReply(0, "v1", 2**63 - 1, {"stop": ["a"]}),
    ]
    turn = create_turn(db, chat.id, text, None, rows)
    assert turn.text == text
    assert [reply.position for reply in turn.replies] == [0, 1]
    assert [reply.state for reply in turn.replies] == ["streaming"] * 2
    assert [reply.slot_type for reply in turn.replies] == ["policy", "duel"]
    assert [reply.seed for reply in turn.replies] == [2**63 - 1, -(2**63)]
    assert [reply.sampling for reply in turn.replies] == [{"stop": ["a"]}, {"temperature": 0.9}]
    set_reply_versions(db, turn.id, ["v1", "v0"])
    done = finish_reply(
        db,
        turn.replies[0].id,
        text="",
        token_ids=[0, 262_143],
        logprobs=[-0.125, -float("inf")],
        finish_reason="length",
        state="complete",
    )
    assert (done.version, done.text, done.finish_reason) == ("v1", "", "length")
    assert done.token_ids == (0, 262_143)
    assert done.logprobs == (-0.125, -float("inf"))
    assert get_turn(db, turn.id).replies[0] == get_reply(db, done.id) == done
    assert get_turn(db, turn.id).replies[1].version == "v0"


@pytest.mark.parametrize("positions", [(), (1, 2), (0, 0), (0, 2), tuple(range(65))])
def test_positions_count_from_zero_without_gaps(positions, db: Database, chat) -> None:
    rows = [NewReply(position, "v0", 1, {}) for position in positions]
    with pytest.raises(BadInputError):
        create_turn(db, chat.id, "Hello", None, rows)
    assert list_turns(db, chat.id) == ()


@pytest.mark.parametrize("text", ["", " \n", "a\x00", "\udfff", "x" * 65_537])
def test_a_refused_message_leaves_no_row(text: str, db: Database, chat) -> None:
    with pytest.raises(BadInputError):
        create_turn(db, chat.id, text, None, [NewReply(0, "v0", 1, {})])
    assert list_turns(db, chat.id) == ()


def test_a_refused_reply_row_leaves_no_turn(db: Database, chat) -> None:
    rows = [NewReply(0, "v0", 1, {}), NewReply(1, "v0", 2**63, {})]
    with pytest.raises(BadInputError, match="the seed"):
        create_turn(db, chat.id, "Hello", None, rows)
    assert db.rows("SELECT id FROM turns") == []


def test_a_turn_continues_from_a_finished_reply_of_its_conversation(
    db: Database, me, chat, make_turn
) -> None:
    first = make_turn(("complete", "interrupted", "streaming"))
    new = [NewReply(0, "v0", 1, {})]
    for reply in first.replies[1:]:
        with pytest.raises(ConflictError, match="continue from a finished reply"):
            create_turn(db, chat.id, "More", reply.id, new)
    elsewhere = create_conversation(db, me.id)
    with pytest.raises(NotFoundError, match="no reply"):
        create_turn(db, elsewhere.id, "More", first.replies[0].id, new)
    with pytest.raises(NotFoundError, match="no conversation"):
        create_turn(db, 99, "More", None, new)


def test_a_reply_is_finished_once_and_in_a_fitting_way(db: Database, make_turn) -> None:
    reply = make_turn(("streaming",)).replies[0]
    ending = {"text": "a", "token_ids": [], "logprobs": []}
    for state, reason in [("complete", "cancelled"), ("cancelled", "stop"), ("streaming", "stop")]:
        with pytest.raises(BadInputError, match="because of"):
            finish_reply(db, reply.id, **ending, state=state, finish_reason=reason)
    finish_reply(db, reply.id, **ending, state="cancelled", finish_reason="cancelled")
    with pytest.raises(ConflictError, match="cancelled already"):
        finish_reply(db, reply.id, **ending, state="complete", finish_reason="stop")


def test_versions_come_one_a_reply(db: Database, make_turn) -> None:
    turn = make_turn(("streaming",) * 2)
    with pytest.raises(BadInputError, match="has 2 replies, but 1 versions"):
        set_reply_versions(db, turn.id, ["v0"])
    with pytest.raises(NotFoundError):
        set_reply_versions(db, 99, ["v0"])


def test_messages_follow_the_branch_that_leads_to_the_parent(db: Database, me, make_turn) -> None:
    chat = create_conversation(db, me.id, "Be brief.")
    first = make_turn(text="One", conversation_id=chat.id)
    left = make_turn(parent=first.replies[2].id, text="Left", conversation_id=chat.id)
    right = make_turn(parent=first.replies[0].id, text="Right", conversation_id=chat.id)
    assert messages_before(db, chat.id, None) == (Message("system", "Be brief."),)
    assert messages_before(db, chat.id, left.replies[1].id) == (
        Message("system", "Be brief."),
        Message("user", "One"),
        Message("assistant", "reply 2"),
        Message("user", "Left"),
        Message("assistant", "reply 1"),
    )
    assert messages_before(db, chat.id, right.replies[3].id)[1:] == (
        Message("user", "One"),
        Message("assistant", "reply 0"),
        Message("user", "Right"),
        Message("assistant", "reply 3"),
    )
    with pytest.raises(NotFoundError):
        messages_before(db, create_conversation(db, me.id).id, left.replies[1].id)


def test_a_blank_system_prompt_is_no_message(db: Database, me) -> None:
    chat = create_conversation(db, me.id, "  ")
    assert messages_before(db, chat.id, None) == ()


def test_the_first_turn_has_no_parent(db: Database, chat) -> None:
    assert choose_parent(db, chat.id) is None


def test_the_next_turn_continues_from_the_best_reply(db: Database, me, chat, make_turn) -> None:
    turn = make_turn()
    ids = [reply.id for reply in turn.replies]
    save_ranking(db, turn.id, me.id, dict(zip(ids, [4, 1, 2, 3], strict=True)))
    assert choose_parent(db, chat.id) == ids[1]
    save_ranking(db, turn.id, me.id, dict(zip(ids, [4, 3, 2, 1], strict=True)))
    assert choose_parent(db, chat.id) == ids[3]


def test_the_owners_ranking_decides_before_another_persons(
    db: Database, me, chat, make_turn
) -> None:
    turn = make_turn(("complete",) * 2)
    first, second = (reply.id for reply in turn.replies)
    save_ranking(db, turn.id, me.id, {first: 1, second: 2})
    other = create_person(db, "other")
    save_ranking(db, turn.id, other.id, {first: 2, second: 1})
    assert choose_parent(db, chat.id) == first


def test_without_a_ranking_every_complete_reply_is_taken_at_times(
    db: Database, chat, make_turn
) -> None:
    taken = set()
    for _ in range(40):
        turn = make_turn(("complete", "cancelled", "complete", "interrupted"))
        chosen = choose_parent(db, chat.id)
        assert chosen == choose_parent(db, chat.id)
        taken.add(next(reply.position for reply in turn.replies if reply.id == chosen))
    assert taken == {0, 2}


def test_a_turn_whose_replies_all_broke_off_is_passed_over(db: Database, chat, make_turn) -> None:
    good = make_turn(("complete",))
    make_turn(("interrupted",), parent=good.replies[0].id)
    assert choose_parent(db, chat.id) == good.replies[0].id
    cut = make_turn(("cancelled", "interrupted"), parent=good.replies[0].id)
    assert choose_parent(db, chat.id) == cut.replies[0].id


def test_no_parent_is_chosen_while_replies_stream(db: Database, chat, make_turn) -> None:
    make_turn(("complete", "streaming"))
    with pytest.raises(ConflictError, match="still stream"):
        choose_parent(db, chat.id)


def test_a_restart_interrupts_what_streamed(db: Database, make_turn) -> None:
    turn = make_turn(("streaming", "complete", "streaming"))
    assert interrupt_streaming(db) == 2
    states = [(reply.state, reply.finish_reason) for reply in get_turn(db, turn.id).replies]
    broken = ("interrupted", "interrupted")
    assert states == [broken, ("complete", "stop"), broken]
    assert interrupt_streaming(db) == 0


def test_erasing_a_conversation_leaves_no_trace_of_it_on_disk(db: Database, me, make_turn) -> None:
    secret = "a secret nobody else may read"
    chat = create_conversation(db, me.id, secret)
    turn = make_turn(text=secret, conversation_id=chat.id)
    save_ranking(db, turn.id, me.id, {}, all_bad=True, comment=secret)
    save_label(db, turn.replies[0].id, me.id, "toxic", True)
    save_demonstration(db, me.id, secret, turn_id=turn.id)
    db.forget_erased()
    assert secret.encode() in db.path.read_bytes()
    delete_conversation(db, chat.id, me.id)
    assert db.rows("SELECT * FROM conversations WHERE id = ?", [chat.id]) == []
    for table in ("turns", "replies", "rankings", "ranking_entries", "labels"):
        assert db.rows(f"SELECT * FROM {table}") == []
    assert db.rows("SELECT * FROM demonstrations") == []
    for path in db.path.parent.iterdir():
        assert secret.encode() not in path.read_bytes(), path


def test_erasing_a_turn_takes_what_was_continued_from_it(db: Database, me, chat, make_turn) -> None:
    first = make_turn()
    second = make_turn(parent=first.replies[1].id)
    third = make_turn(parent=second.replies[0].id)
    sibling = make_turn()
    delete_turn(db, second.id)
    assert [turn.id for turn in list_turns(db, chat.id)] == [first.id, sibling.id]
    with pytest.raises(NotFoundError):
        get_reply(db, third.replies[0].id)
    with pytest.raises(NotFoundError):
        delete_turn(db, second.id)


def test_erasing_marks_the_versions_that_were_trained_on_it(
    db: Database, me, chat, make_turn
) -> None:
    first = make_turn()
    second = make_turn(parent=first.replies[0].id)
    later = make_turn()
    trained = [save_ranking(db, turn.id, me.id, {}, all_bad=True) for turn in (first, second)]
    run = runs.enqueue_run(db, ["reward"], "local", {}, trained[-1].id)
    save_ranking(db, later.id, me.id, {}, all_bad=True)
    versions.register_version(db, "v0", None, None, "", {}, "")
    versions.register_version(db, "v1", "v0", run.id, "a" * 64, {}, "")
    delete_turn(db, first.id)  # and with it the second
    marks = {version.name: version.erased_rankings for version in versions.list_versions(db)}
    assert marks == {"v0": 0, "v1": 2}
    delete_conversation(db, chat.id)
    assert versions.get_version(db, "v1").erased_rankings == 2


def test_ids_are_not_used_again(db: Database, make_turn) -> None:
    turn = make_turn()
    delete_turn(db, turn.id)
    assert make_turn().id > turn.id


def test_a_flipped_byte_inside_a_reply_is_found(db: Database, make_turn) -> None:
    turn = make_turn()
    assert list(damaged_replies(db)) == []
    stored = db.row("SELECT text_sha256 FROM replies WHERE id = ?", [turn.replies[2].id])
    assert stored == {"text_sha256": hashlib.sha256(b"reply 2").hexdigest()}
    db.forget_erased()
    db.close()
    content = db.path.read_bytes()
    assert content.count(b"reply 2") == 1
    db.path.write_bytes(content.replace(b"reply 2", b"reply 3"))
    assert list(damaged_replies(Database(db.path))) == [turn.replies[2].id]


def test_a_turn_and_a_reply_are_seen_by_their_person_only(db: Database, me, make_turn) -> None:
    other = create_person(db, "other")
    turn = make_turn()
    assert get_turn(db, turn.id, me.id) == turn
    assert get_reply(db, turn.replies[0].id, me.id) == turn.replies[0]
    with pytest.raises(NotFoundError):
        get_turn(db, turn.id, other.id)
    with pytest.raises(NotFoundError):
        get_reply(db, turn.replies[0].id, other.id)
    with pytest.raises(NotFoundError):
        delete_turn(db, turn.id, other.id)
