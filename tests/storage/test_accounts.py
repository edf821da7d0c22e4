"""What removing people does to rows, and the end of the audit log."""

from __future__ import annotations

import pytest

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage import accounts, audit, people, rankings, runs, sessions, versions
from storage.conversations import (
    NewReply,
    create_conversation,
    create_turn,
    finish_reply,
    get_conversation,
)
from storage.database import Database

HASH = "a hash"
TABLES = ("conversations", "rankings", "labels", "demonstrations", "sessions", "api_keys")


@pytest.fixture
def ann(db: Database):
    return accounts.add_first_account(db, "Ann", HASH)


@pytest.fixture
def bob(db: Database, ann):
    return accounts.add_account(db, "Bob", "rater", HASH, ann.id)


def ranked_turn(db: Database, owner: int, rater: int) -> int:
    chat = create_conversation(db, owner)
    rows = [NewReply(place, "v0", place, {}) for place in range(2)]
    turn = create_turn(db, chat.id, "Hello", None, rows)
    for reply in turn.replies:
        finish_reply(
            db, reply.id, text="r", token_ids=[1], logprobs=[-1.0], finish_reason="stop",
            state="complete",
        )  # fmt: skip
    ranks = {reply.id: place for place, reply in enumerate(turn.replies, start=1)}
    return rankings.save_ranking(db, turn.id, rater, ranks).id


def trained_version(db: Database, up_to: int) -> str:
    run = runs.enqueue_run(db, ("reward",), "Ann", {}, up_to)
    claimed = runs.claim_run(db, "worker", 1, "boot")
    name = versions.next_version_name(db)
    versions.register_version(db, name, None, run.id, "", {}, "")
    runs.finish_run(db, run.id, claimed.fence, "succeeded", "", name)
    return name


def test_removing_a_person_takes_all_of_theirs_and_marks_versions(db, ann, bob):
    """Bob's rating of Ann's chat, Bob's of his own, and Ann's of Bob's chat go; Ann's own stays."""
    ranked_turn(db, ann.id, bob.id)
    ranked_turn(db, bob.id, bob.id)
    trained = ranked_turn(db, bob.id, ann.id)
    before = trained_version(db, trained)
    kept = ranked_turn(db, ann.id, ann.id)
    after = trained_version(db, kept)
    sessions.open_session(db, bob.id)
    sessions.make_key(db, bob.id, "x")
    gone = accounts.remove_person(db, bob.id, ann.id)
    assert (gone.conversations, gone.rankings) == (2, 2)
    for table in TABLES:
        assert db.rows(f"SELECT 1 FROM {table} WHERE person_id = ?", [bob.id]) == [], table
    assert [row.id for row in rankings.list_rankings(db)] == [kept]
    assert versions.get_version(db, before).erased_rankings == 3
    assert versions.get_version(db, after).erased_rankings == 3
    with pytest.raises(NotFoundError):
        people.get_person(db, bob.id)
    last = people.list_audit(db)[-1]
    assert (last.person_id, last.action, last.detail["name"]) == (ann.id, "remove_person", "Bob")
    assert people.broken_audit_entry(db) is None


def test_the_local_person_and_the_last_admin_stay(db):
    local = people.ensure_local_person(db)
    with pytest.raises(ConflictError, match="local person"):
        accounts.remove_person(db, local.id)
    ann = accounts.add_first_account(db, "Ann", HASH)
    assert ann.id == local.id
    for change in (
        lambda: accounts.remove_person(db, ann.id),
        lambda: accounts.set_role(db, ann.id, "trainer"),
    ):
        with pytest.raises(ConflictError, match="only admin"):
            change()
    accounts.add_account(db, "Bob", "admin", HASH)
    accounts.set_role(db, ann.id, "trainer")
    assert people.operator(db).name == "Bob"


def test_there_is_one_first_account(db, ann):
    with pytest.raises(ConflictError, match="accounts already"):
        accounts.add_first_account(db, "Eve", HASH)
    with pytest.raises(ConflictError, match="local person"):
        people.ensure_local_person(db)
    assert [person.name for person in people.list_people(db)] == ["Ann"]


@pytest.mark.parametrize("name", ["", "  ", "Local", "argilla:7", "a\nb", "a\u200bb", "x" * 101])
def test_names_that_an_account_cannot_have(db, ann, name):
    with pytest.raises(BadInputError):
        accounts.add_account(db, name, "rater", HASH)


def test_names_differ_by_more_than_case(db, ann):
    with pytest.raises(ConflictError, match="'Ann' already"):
        accounts.add_account(db, " ANN ", "rater", HASH)
    assert accounts.find_login(db, "aNN")[0] == ann
    assert accounts.find_login(db, "Bob") is None


def test_an_imported_rater_cannot_sign_in_until_given_a_password(db, ann):
    with db.transaction():
        rater = people.person_id_of(db, "argilla:7")
    assert accounts.find_login(db, "argilla:7") is None
    assert accounts.summary_of(db, rater).has_account is False
    accounts.set_password(db, rater, HASH)
    assert accounts.find_login(db, "argilla:7")[0].id == rater


def test_when_a_key_was_last_used_is_written_once_a_minute(db, ann):
    made, key = sessions.make_key(db, ann.id, "x")
    sessions.note_use(db, made)
    first = sessions.find_key(db, key)[0]
    assert first.last_used_at is not None
    sessions.note_use(db, first)
    assert sessions.find_key(db, key)[0].last_used_at == first.last_used_at
    with db.transaction() as connection:
        connection.execute("UPDATE api_keys SET last_used_at = ?", [sessions.in_days(-1)])
    sessions.note_use(db, sessions.find_key(db, key)[0])
    assert sessions.find_key(db, key)[0].last_used_at >= first.last_used_at


def test_sessions_that_ended_long_ago_are_forgotten(db, ann):
    tokens = [sessions.open_session(db, ann.id, days=days) for days in (-31, -29, 1)]
    sessions.forget_old_sessions(db)
    assert db.rows("SELECT count(*) AS n FROM sessions")[0]["n"] == 2
    assert [sessions.find_session(db, token) is not None for token in tokens] == [
        False,
        False,
        True,
    ]


def test_an_audit_log_cut_at_its_end_is_found(db):
    for number in range(3):
        people.add_audit(db, None, "act", {"n": number})
    with db.transaction() as connection:
        connection.execute("DROP TRIGGER audit_log_never_shrinks")
        connection.execute("DELETE FROM audit_log WHERE id = 3")
    assert people.broken_audit_entry(db) == 3


def test_the_audit_log_is_read_from_its_end(db):
    for number in range(5):
        people.add_audit(db, None, "act", {"n": number})
    newest = audit.newest_audit(db, limit=2)
    assert [entry.detail["n"] for entry in newest] == [4, 3]
    older = audit.newest_audit(db, before_id=newest[-1].id, limit=2)
    assert [entry.detail["n"] for entry in older] == [2, 1]
    assert audit.newest_hash(db) == newest[0].sha256


def test_what_is_not_removed_is_still_there(db, ann, bob):
    chat = create_conversation(db, ann.id)
    accounts.remove_person(db, bob.id)
    assert get_conversation(db, chat.id, ann.id) == chat
