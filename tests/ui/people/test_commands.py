"""``chatrlhf people`` and ``chatrlhf audit``."""

from __future__ import annotations

import io
import json
import sys

import pytest

from storage import accounts, invitations, people, sessions
from storage.conversations import create_conversation, list_conversations
from storage.database import open_database
from ui import cli

PASSWORD = "four words of Ann"


@pytest.fixture
def db(tmp_path, monkeypatch):
    monkeypatch.setenv("CHATRLHF_DATA", str(tmp_path))
    monkeypatch.delenv("CHATRLHF_PASSWORD", raising=False)
    opened = open_database(tmp_path / "chatrlhf.db")
    yield opened
    opened.close()


@pytest.fixture
def run(db, capsys, monkeypatch):
    """Run a command; its exit code, output and errors."""

    def run(*arguments, typed=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = cli.main([*arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def ann(db, run):
    assert run("people", "add", "--admin", "Ann", "--password-stdin", typed=PASSWORD)[0] == 0
    return people.find_person(db, "Ann")


def test_the_first_admin_takes_over_what_is_there(db, run):
    local = people.ensure_local_person(db)
    create_conversation(db, local.id, title="old")
    code, said, _ = run("people", "add", "--admin", "Ann", "--password-stdin", typed=PASSWORD)
    assert code == 0
    assert "Ann can sign in as admin" in said
    found = people.find_person(db, "Ann")
    assert found.id == local.id
    assert [chat.title for chat in list_conversations(db, found.id)] == ["old"]
    with pytest.raises(people.ConflictError):
        people.ensure_local_person(db)


def test_the_first_account_must_be_an_admins(db, run):
    code, _, error = run("people", "add", "Bob", "--password-stdin", typed=PASSWORD)
    assert code == 2
    assert "--admin" in error
    assert not people.has_accounts(db)


def test_a_password_comes_from_the_environment_or_input_and_never_as_an_option(
    db, run, ann, monkeypatch
):
    code, _, error = run("people", "add", "Bob")
    assert code == 2
    assert "--password-stdin" in error
    monkeypatch.setenv("CHATRLHF_PASSWORD", "four words of Bob")
    assert run("people", "add", "Bob", "--role", "trainer")[0] == 0
    assert people.find_person(db, "Bob").role == "trainer"
    assert run("people", "add", "Cem", "--password", "x")[0] != 0
    assert people.find_person(db, "Cem") is None


def test_a_weak_password_adds_nobody(db, run):
    code, _, error = run("people", "add", "--admin", "Ann", "--password-stdin", typed="short")
    assert code == 2
    assert "5 characters" in error
    assert not people.has_accounts(db)


def test_people_are_listed_as_json(run, ann):
    (row,) = json.loads(run("people", "list", "--json")[1])
    assert (row["name"], row["role"], row["has_account"]) == ("Ann", "admin", True)
    assert "password" not in str(row)
    assert "Ann" in run("people", "list")[1]


def test_roles_and_passwords_are_changed(db, run, ann, monkeypatch):
    monkeypatch.setenv("CHATRLHF_PASSWORD", "four words of Bob")
    run("people", "add", "Bob")
    bob = people.find_person(db, "Bob")
    token = sessions.open_session(db, bob.id)
    assert json.loads(run("people", "role", "Bob", "admin", "--json")[1])["role"] == "admin"
    assert run("people", "role", "Bob", "king")[0] == 2
    before = accounts.password_hash_of(db, bob.id)
    assert run("people", "password", "Bob")[0] == 0
    assert accounts.password_hash_of(db, bob.id) != before
    assert sessions.find_session(db, token) is None
    assert run("people", "role", "Nobody", "admin")[2].startswith("chatrlhf: There is nobody")


def test_the_last_admin_stays(run, ann):
    code, _, error = run("people", "role", "Ann", "rater")
    assert code == 2
    assert "only admin" in error
    assert run("people", "remove", "Ann", "--yes")[0] == 2


def test_an_invitation_is_a_link(db, run, ann):
    code, said, _ = run("people", "invite", "--role", "reader", "--url", "https://chat.example/")
    assert code == 0
    link = said.splitlines()[-1]
    assert link.startswith("https://chat.example/login#invitation=")
    found = invitations.open_invitation(db, link.split("=")[1])
    assert (found.role, found.invited_by) == ("reader", None)


def test_nobody_is_invited_before_there_is_an_account(run, db):
    code, _, error = run("people", "invite")
    assert code == 2
    assert "people add --admin" in error


def test_keys_are_made_listed_and_revoked(db, run, ann):
    key = run("people", "keys", "make", "Ann", "notebook")[1].strip()
    assert sessions.find_key(db, key)[1].name == "Ann"
    (row,) = json.loads(run("people", "keys", "list", "Ann", "--json")[1])
    assert key not in str(row)
    assert run("people", "keys", "revoke", "Ann", str(row["id"]))[0] == 0
    assert sessions.find_key(db, key) is None
    assert run("people", "keys", "revoke", "Ann", str(row["id"]))[0] == 2


def test_removing_asks_unless_told_not_to(db, run, ann, monkeypatch):
    monkeypatch.setenv("CHATRLHF_PASSWORD", "four words of Bob")
    run("people", "add", "Bob")
    assert run("people", "remove", "Bob", typed="n\n")[0] != 0
    assert people.find_person(db, "Bob") is not None
    code, said, _ = run("people", "remove", "Bob", "--yes", "--json")
    assert (code, json.loads(said)["name"]) == (0, "Bob")
    assert people.find_person(db, "Bob") is None


def test_the_audit_log_is_listed_and_verified(db, run, ann):
    entries = json.loads(run("audit", "list", "--json")[1])
    assert [entry["action"] for entry in entries] == ["first_account"]
    assert "first_account" in run("audit", "list")[1]
    noted = json.loads(run("audit", "verify", "--json")[1])["sha256"]
    people.add_audit(db, None, "act", {})
    assert run("audit", "verify", "--since", noted)[0] == 0
    with db.transaction() as connection:
        connection.execute("DROP TRIGGER audit_log_never_changes")
        connection.execute("UPDATE audit_log SET detail = '{}' WHERE id = 1")
    code, said, _ = run("audit", "verify")
    assert code == 1
    assert "Entry 1" in said


def test_a_log_that_was_chained_anew_lacks_the_noted_hash(db, run, ann):
    noted = json.loads(run("audit", "verify", "--json")[1])["sha256"]
    with db.transaction() as connection:
        connection.execute("DROP TRIGGER audit_log_never_shrinks")
        connection.execute("DELETE FROM audit_log")
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'audit_log'")
    people.add_audit(db, None, "harmless", {})
    assert run("audit", "verify")[0] == 0
    code, said, _ = run("audit", "verify", "--since", noted)
    assert code == 1
    assert noted in said.replace("\n", "")
