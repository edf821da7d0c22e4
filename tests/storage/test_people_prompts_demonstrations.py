from __future__ import annotations

import pytest

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage import demonstrations, people, prompts
from storage.conversations import create_conversation, delete_turn
from storage.database import Database
from storage.records import Message

ASKED = [Message("system", "Be brief."), Message("user", "Hello")]


def test_the_local_person_is_made_once(db: Database) -> None:
    first = people.ensure_local_person(db)
    assert (first.name, first.role) == ("local", "admin")
    assert people.ensure_local_person(db) == first
    assert people.list_people(db) == [first] == [people.get_person(db, first.id)]


def test_names_are_unique_and_roles_known(db: Database) -> None:
    ann = people.create_person(db, "ann", "trainer")
    assert people.find_person(db, "ann") == ann
    assert people.find_person(db, "bob") is None
    with pytest.raises(ConflictError, match="'ann' already"):
        people.create_person(db, "ann")
    with pytest.raises(BadInputError, match="role 'king'"):
        people.create_person(db, "bob", "king")
    with pytest.raises(NotFoundError):
        people.get_person(db, 99)


def test_the_audit_log_is_a_chain_that_only_grows(db: Database) -> None:
    for number in range(3):
        people.add_audit(db, None, "act", {"n": number})
    entries = people.list_audit(db)
    assert [entry.detail for entry in entries] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert entries[1].previous_sha256 == entries[0].sha256
    assert people.list_audit(db, after_id=entries[0].id, limit=1) == [entries[1]]
    assert people.broken_audit_entry(db) is None
    for change in ("UPDATE audit_log SET action = 'x'", "DELETE FROM audit_log"):
        with pytest.raises(ConflictError, match="append-only"), db.transaction() as connection:
            connection.execute(change)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE audit_log SET person_id = 7 WHERE id = 2", 2),
        ("UPDATE audit_log SET detail = '{}' WHERE id = 3", 3),
        ("DELETE FROM audit_log WHERE id = 2", 3),
    ],
)
def test_a_changed_audit_log_is_found(change: str, broken: int, db: Database) -> None:
    for number in range(3):
        people.add_audit(db, None, "act", {"n": number})
    with db.transaction() as connection:
        connection.execute("DROP TRIGGER audit_log_never_changes")
        connection.execute("DROP TRIGGER audit_log_never_shrinks")
        connection.execute(change)
    assert people.broken_audit_entry(db) == broken


def test_prompts_are_added_once(db: Database) -> None:
    batch = [("a", "", ["x", "y"]), ("b", "Be brief.", []), ("a", "other", [])]
    assert prompts.add_prompts(db, batch) == 2
    assert prompts.add_prompts(db, batch) == 0
    first, second = prompts.list_prompts(db)
    assert (first.text, first.system_prompt, first.tags) == ("a", "", ("x", "y"))
    assert (second.text, second.system_prompt) == ("b", "Be brief.")
    assert prompts.list_prompts(db, limit=1) == [first]


def test_about_one_prompt_in_five_is_held_out_for_good(db: Database) -> None:
    texts = [f"prompt {number}" for number in range(1000)]
    prompts.add_prompts(db, [(text, "", []) for text in texts])
    held_out = prompts.list_prompts(db, "held_out")
    train = prompts.list_prompts(db, "train")
    assert 150 <= len(held_out) <= 250
    assert sorted(item.text for item in held_out + train) == sorted(texts)
    assert {prompts.split_of(item.text) for item in held_out} == {"held_out"}


def test_one_bad_prompt_refuses_the_batch(db: Database) -> None:
    with pytest.raises(BadInputError, match="prompt 2 is empty"):
        prompts.add_prompts(db, [("a", "", []), (" ", "", [])])
    assert prompts.list_prompts(db) == []


def test_a_demonstration_of_a_turn_refers_to_it(db: Database, me, make_turn) -> None:
    chat = create_conversation(db, me.id, "Be brief.")
    turn = make_turn(text="Hello", conversation_id=chat.id)
    text = " e\u0301 👩\u200d👩\u200d👧\n"
    saved = demonstrations.save_demonstration(db, me.id, text, turn_id=turn.id)
    assert saved.messages == tuple(ASKED)
    assert saved.text == text
    assert db.rows("SELECT messages FROM demonstrations") == [{"messages": None}]
    assert demonstrations.list_demonstrations(db, turn_id=turn.id) == [saved]
    delete_turn(db, turn.id)
    assert demonstrations.list_demonstrations(db) == []


def test_an_imported_demonstration_keeps_its_messages(db: Database, me) -> None:
    first = demonstrations.save_demonstration(db, me.id, "Hi.", messages=ASKED)
    second = demonstrations.save_demonstration(db, me.id, "Hi!", messages=ASKED)
    assert first.messages == tuple(ASKED)
    assert demonstrations.list_demonstrations(db, after_id=first.id) == [second]
    assert demonstrations.count_new(db, 0) == 2
    assert demonstrations.count_new(db, first.id) == 1
    assert demonstrations.newest_id(db) == second.id
    with pytest.raises(NotFoundError):
        demonstrations.delete_demonstration(db, first.id, me.id + 1)
    demonstrations.delete_demonstration(db, first.id)
    with pytest.raises(NotFoundError):
        demonstrations.delete_demonstration(db, first.id)
    with pytest.raises(NotFoundError):
        demonstrations.get_demonstration(db, first.id)


@pytest.mark.parametrize(
    "change",
    [
        {"text": " ", "messages": ASKED},
        {"turn_id": 1, "messages": ASKED},
        {},
        {"messages": []},
        {"messages": [*ASKED, Message("assistant", "Hi.")]},
        {"messages": [Message("user", "")]},
        {"messages": [Message("tool", "x"), *ASKED]},
    ],
)
def test_a_demonstration_needs_text_and_one_context(change: dict, db: Database, me) -> None:
    with pytest.raises(BadInputError):
        demonstrations.save_demonstration(db, me.id, **{"text": "Hi.", **change})


def test_a_demonstration_needs_a_known_turn_and_person(db: Database, me) -> None:
    with pytest.raises(NotFoundError, match="no turn 99"):
        demonstrations.save_demonstration(db, me.id, "Hi.", turn_id=99)
    with pytest.raises(NotFoundError, match="no person 99"):
        demonstrations.save_demonstration(db, 99, "Hi.", messages=ASKED)
