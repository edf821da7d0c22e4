"""Sessions, keys, throttling, invitations, and what the audit log says of them."""

from __future__ import annotations

import datetime

import pytest
from argon2 import PasswordHasher
from team import Team, password_of

from storage import accounts, audit, people, sessions
from storage.values import sha256_of
from ui import passwords, throttle
from ui.throttle import Throttle


def sign_in(client, name, password):
    return client.post("/api/session", json={"name": name, "password": password})


def test_without_accounts_everything_is_the_local_persons(app):
    client = Team(app).stranger()
    me = client.get("/api/me").json()
    assert (me["name"], me["role"], me["signed_in_by"]) == ("local", "admin", "local")
    assert me["has_accounts"] is False
    assert client.get("/v1/models", headers={"Authorization": "Bearer none"}).status_code == 200
    for path in ("/api/me/keys", "/api/invitations"):
        assert client.post(path, json={"name": "x"} if "keys" in path else {}).status_code in (
            403,
            409,
        )


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_without_accounts_nobody_comes_through_a_proxy(app, header):
    answer = Team(app).stranger().get("/api/me", headers={header: "203.0.113.7"})
    assert answer.status_code == 401
    assert "chatrlhf people add --admin NAME" in answer.json()["error"]["message"]


def test_the_cookie_is_for_this_site_and_for_no_script(team):
    answer = sign_in(team.stranger(), "Rae", password_of("Rae"))
    cookie = answer.headers["set-cookie"]
    for part in ("chatrlhf_session=", "HttpOnly", "SameSite=strict", "Path=/", "Max-Age=2592000"):
        assert part in cookie
    assert "Secure" not in cookie
    assert "Domain" not in cookie
    token = answer.cookies["chatrlhf_session"]
    assert len(token) >= 43  # 256 bits
    stored = team.app.db.rows("SELECT * FROM sessions")
    assert [row["token_sha256"] for row in stored] == [sha256_of(token)]
    assert token not in str(stored)


def test_over_https_the_cookie_is_secure_and_of_this_host_alone(team):
    client = team.stranger(base_url="https://127.0.0.1:7860")
    cookie = sign_in(client, "Rae", password_of("Rae")).headers["set-cookie"]
    assert cookie.startswith("__Host-chatrlhf_session=")
    assert "Secure" in cookie
    assert client.get("/api/me").json()["name"] == "Rae"


@pytest.mark.parametrize(
    ("name", "password"),
    [("Rae", "wrong"), ("nobody", "four words of Rae"), ("", "x"), ("Rae", "x" * 999)],
)
def test_a_wrong_name_and_a_wrong_password_are_refused_alike(team, name, password):
    answer = sign_in(team.stranger(), name, password)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "The name or the password is wrong."
    assert "set-cookie" not in answer.headers


def test_unknown_names_cost_the_same_work(team, monkeypatch):
    checked = []
    real = passwords._fits
    monkeypatch.setattr(passwords, "_fits", lambda *given: checked.append(given) or real(*given))
    for name in ("Rae", "nobody"):
        sign_in(team.stranger(), name, "wrong password")
    assert len(checked) == 2
    parameters = [stored.rsplit("$", 2)[0] for stored, _ in checked]
    assert parameters[0] == parameters[1]


def test_a_name_is_known_in_any_case(team):
    assert sign_in(team.stranger(), " rae ", password_of("Rae")).json()["name"] == "Rae"


def test_a_session_ends_by_its_time(team):
    client = team.browser("Rae")
    assert client.get("/api/me").status_code == 200
    with team.app.db.transaction() as connection:
        connection.execute("UPDATE sessions SET expires_at = ?", [sessions.in_days(-0.001)])
    answer = client.get("/api/me")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "not_signed_in"
    assert client.get("/api/me/sessions").status_code == 401


def test_signing_out_ends_this_session_only(team):
    here, there = team.browser("Rae"), team.browser("Rae")
    token = here.cookies["chatrlhf_session"]
    assert here.delete("/api/session").json() == {"signed_out": 1}
    assert "chatrlhf_session" not in here.cookies
    assert there.get("/api/me").status_code == 200
    thief = team.stranger()
    thief.cookies["chatrlhf_session"] = token
    assert thief.get("/api/me").status_code == 401


def test_signing_out_everywhere_and_of_one_other(team):
    here, there, third = (team.browser("Rae") for _ in range(3))
    listed = here.get("/api/me/sessions").json()
    assert [row["is_this_one"] for row in listed] == [False, False, True]
    assert here.delete(f"/api/me/sessions/{listed[0]['id']}").status_code == 200
    assert third.get("/api/me").status_code == 401
    bob = team.browser("Bob")
    assert bob.delete(f"/api/me/sessions/{listed[1]['id']}").status_code == 404
    assert here.delete("/api/me/sessions").json() == {"signed_out": 2}
    assert here.get("/api/me").status_code == there.get("/api/me").status_code == 401
    assert bob.get("/api/me").status_code == 200


def test_signing_in_again_replaces_the_session(team):
    client = team.browser("Rae")
    first = client.cookies["chatrlhf_session"]
    sign_in(client, "Rae", password_of("Rae"))
    assert client.cookies["chatrlhf_session"] != first
    assert len(client.get("/api/me/sessions").json()) == 1


def test_a_new_password_ends_the_other_sessions(team):
    here, there = team.browser("Rae"), team.browser("Rae")
    new = "a quite different one"
    wrong = here.put("/api/me/password", json={"old": "not it", "new": new})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "wrong_password")
    weak = here.put("/api/me/password", json={"old": password_of("Rae"), "new": "short"})
    assert weak.status_code == 422
    body = {"old": password_of("Rae"), "new": new}
    assert here.put("/api/me/password", json=body).status_code == 200
    assert here.get("/api/me").status_code == 200
    assert there.get("/api/me").status_code == 401
    assert sign_in(team.stranger(), "Rae", password_of("Rae")).status_code == 401
    assert sign_in(team.stranger(), "Rae", new).status_code == 200


@pytest.mark.parametrize(
    "password", ["short", "x" * 201, "aaaaaaaaaaaa", "long\x00enough\x00", "a-long-name-here"]
)
def test_passwords_that_are_refused(password):
    with pytest.raises(passwords.BadInputError):
        passwords.hash_password(password, "A-Long-Name-Here")


def test_passwords_are_hashed_by_argon2id():
    real = PasswordHasher()
    assert (real.time_cost, real.memory_cost, real.parallelism) == (3, 65536, 4)
    assert passwords.hash_password("four words or more", "x").startswith("$argon2id$v=19$")


def test_a_password_is_hashed_anew_when_the_parameters_change(team, monkeypatch):
    before = accounts.password_hash_of(team.app.db, team.ids["Rae"])
    stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    monkeypatch.setattr(passwords, "HASHER", stronger)
    team.browser("Rae")
    after = accounts.password_hash_of(team.app.db, team.ids["Rae"])
    assert after != before
    assert "t=2" in after
    team.browser("Rae")
    assert accounts.password_hash_of(team.app.db, team.ids["Rae"]) == after


# --- keys ---------------------------------------------------------------------------------------


def test_a_key_is_shown_once_works_and_is_revoked(team):
    page = team.browser("Rae")
    made = page.post("/api/me/keys", json={"name": "notebook"}).json()
    assert made["key"].startswith("crl_")
    assert made["hint"] == made["key"][:8]
    program = team.stranger()
    program.headers["Authorization"] = f"Bearer {made['key']}"
    assert program.get("/api/me").json()["signed_in_by"] == "key"
    assert program.get("/v1/models").status_code == 200
    (listed,) = page.get("/api/me/keys").json()
    assert "key" not in listed
    assert listed["last_used_at"] is not None
    assert made["key"] not in str(team.app.db.rows("SELECT * FROM api_keys"))
    assert team.browser("Bob").delete(f"/api/me/keys/{made['id']}").status_code == 404
    assert page.delete(f"/api/me/keys/{made['id']}").status_code == 200
    for path in ("/api/me", "/v1/models"):
        answer = program.get(path)
        assert answer.status_code == 401
        assert "revoked" in answer.json()["error"]["message"]
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer crl_nope", "Basic eDp5", "é"])
def test_what_is_no_key_is_refused(team, header):
    answer = team.stranger().get("/v1/models", headers={"Authorization": header.encode()})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


def test_a_wrong_key_is_not_saved_by_a_good_cookie(team):
    answer = team.browser("Rae").get("/api/me", headers={"Authorization": "Bearer crl_nope"})
    assert answer.status_code == 401


def test_a_key_makes_no_keys_and_changes_no_password(team):
    program = team.program("Ann")
    password = {"old": password_of("Ann"), "new": "something else"}
    for method, path, body in (
        ("POST", "/api/me/keys", {"name": "more"}),
        ("PUT", "/api/me/password", password),
        ("DELETE", "/api/me/sessions", None),
    ):
        assert program.request(method, path, json=body).status_code == 403
    assert len(program.get("/api/me/keys").json()) == 1


# --- throttling ---------------------------------------------------------------------------------


@pytest.fixture
def clock(team):
    moment = [1000.0]
    team.server.state.throttle = Throttle(lambda: moment[0])
    return moment


def test_guessing_one_password_is_slowed_down(team, clock):
    for number in range(throttle.TRIES_OF_NAME):
        client = team.stranger(client=f"10.0.0.{number}")
        assert sign_in(client, "Rae", f"guess {number}").status_code == 401
    answer = sign_in(team.stranger(client="10.0.1.1"), "rae", password_of("Rae"))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "30"
    assert answer.json()["error"]["message"].endswith("Try again in 30 seconds.")
    assert sign_in(team.stranger(), "Bob", password_of("Bob")).status_code == 200
    clock[0] += 31.0
    assert sign_in(team.stranger(), "Rae", password_of("Rae")).status_code == 200


def test_guessing_from_one_address_is_slowed_down(team, clock):
    for number in range(throttle.TRIES_OF_ADDRESS):
        assert sign_in(team.stranger(), f"name {number}", "guess").status_code == 401
    assert sign_in(team.stranger(), "Rae", password_of("Rae")).status_code == 429
    elsewhere = team.stranger(client="10.0.0.10")
    assert sign_in(elsewhere, "Rae", password_of("Rae")).status_code == 200


def test_right_passwords_are_not_counted(team, clock):
    for _ in range(3 * throttle.TRIES_OF_ADDRESS):
        assert sign_in(team.stranger(), "Rae", password_of("Rae")).status_code == 200


def test_one_subscriber_of_ipv6_is_one_address(clock):
    slow = Throttle(lambda: 0.0)
    for number in range(throttle.TRIES_OF_ADDRESS):
        slow.take("", f"2001:db8::{number:x}")
    with pytest.raises(throttle.TooManyAttemptsError):
        slow.take("", "2001:db8::ffff")
    slow.take("", "2001:db8:0:1::1")


def test_the_throttle_forgets_names_rather_than_grow(monkeypatch):
    monkeypatch.setattr(throttle, "_MOST_BUCKETS", 50)
    moment = [0.0]
    slow = Throttle(lambda: moment[0])
    for number in range(500):
        moment[0] += 1000.0
        slow.take(f"name {number}", f"10.0.{number // 250}.{number % 250}")
    assert len(slow._buckets) <= 50


# --- invitations --------------------------------------------------------------------------------


def invited(team, **body):
    answer = team.browser("Ann").post("/api/invitations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def accept(team, secret, name="Kim", password="four words of Kim"):
    body = {"secret": secret, "name": name, "password": password}
    client = team.stranger()
    return client, client.post("/api/invitations/accept", json=body)


def test_an_invitation_is_used_once(team):
    made = invited(team, role="trainer", note="for Kim")
    assert made["path"] == f"/login#invitation={made['secret']}"
    assert made["secret"] not in str(team.app.db.rows("SELECT * FROM invitations"))
    read = team.stranger().post("/api/invitations/read", json={"secret": made["secret"]})
    assert (read.json()["role"], read.json()["invited_by"]) == ("trainer", "Ann")
    taken = accept(team, made["secret"], name="rae")[1]
    assert taken.status_code == 409
    client, answer = accept(team, made["secret"])
    assert answer.json()["role"] == "trainer"
    assert client.get("/api/me").json()["name"] == "Kim"
    again = accept(team, made["secret"], name="Lee")[1]
    assert again.status_code == 404
    assert "has been used" in again.json()["error"]["message"]
    (listed,) = team.browser("Ann").get("/api/invitations").json()
    assert (listed["state"], listed["used_by"]) == ("used", "Kim")
    assert "secret" not in listed


def test_an_invitation_is_withdrawn_or_expires(team):
    made = invited(team)
    ann = team.browser("Ann")
    assert ann.delete(f"/api/invitations/{made['id']}").json()["state"] == "withdrawn"
    assert ann.delete(f"/api/invitations/{made['id']}").status_code == 404
    assert "withdrawn" in accept(team, made["secret"])[1].json()["error"]["message"]
    late = invited(team)
    with team.app.db.transaction() as connection:
        connection.execute("UPDATE invitations SET expires_at = ?", [sessions.in_days(-1)])
    answer = accept(team, late["secret"])[1]
    assert answer.status_code == 404
    assert "expired" in answer.json()["error"]["message"]
    assert people.find_person(team.app.db, "Kim") is None


@pytest.mark.parametrize(
    ("name", "password"),
    [("", "four words of Kim"), ("local", "four words of Kim"), ("Kim", "short"),
     ("a:b", "four words of Kim"), ("Ki\u202em", "four words of Kim")],
)  # fmt: skip
def test_a_refused_acceptance_leaves_the_invitation_open(team, name, password):
    made = invited(team)
    assert accept(team, made["secret"], name, password)[1].status_code == 422
    assert accept(team, made["secret"])[1].status_code == 200


# --- people and the audit log -------------------------------------------------------------------


def test_an_admin_changes_roles_at_once(team):
    ann, rae = team.browser("Ann"), team.browser("Rae")
    assert rae.post("/api/trainer/pause").status_code == 403
    path = f"/api/people/{team.ids['Rae']}"
    assert ann.patch(path, json={"role": "trainer"}).json()["role"] == "trainer"
    assert rae.post("/api/trainer/pause").status_code != 403
    assert ann.patch(path, json={"role": "king"}).status_code == 422
    last = ann.patch(f"/api/people/{team.ids['Ann']}", json={"role": "rater"})
    assert last.status_code == 409
    assert "only admin" in last.json()["error"]["message"]


def test_a_removed_person_is_signed_out_and_gone(team):
    ann, rae, program = team.browser("Ann"), team.browser("Rae"), team.program("Rae")
    chat = rae.post("/api/conversations", json={}).json()["id"]
    answer = ann.delete(f"/api/people/{team.ids['Rae']}").json()
    assert (answer["removed"]["name"], answer["removed"]["conversations"]) == ("Rae", 1)
    assert rae.get("/api/me").status_code == program.get("/api/me").status_code == 401
    assert team.app.db.rows("SELECT * FROM conversations WHERE id = ?", [chat]) == []
    assert ann.delete(f"/api/people/{team.ids['Ann']}").status_code == 409


def test_the_page_makes_the_first_account(app):
    team = Team(app)
    client = team.stranger()
    chat = client.post("/api/conversations", json={}).json()["id"]
    body = {"name": "Ann", "password": "four words of Ann"}
    assert client.post("/api/people", json=body).status_code == 422
    made = client.post("/api/people", json={**body, "role": "admin"})
    assert made.json()["name"] == "Ann"
    assert client.get("/api/me").json()["signed_in_by"] == "session"
    assert [row["id"] for row in client.get("/api/conversations").json()] == [chat]
    assert team.stranger().get("/api/me").status_code == 401
    assert [person.name for person in people.list_people(app.db)] == ["Ann"]


def test_what_changes_things_is_in_the_audit_log(team):
    ann = team.browser("Ann")
    rae_id = team.ids["Rae"]
    ann.patch(f"/api/people/{rae_id}", json={"role": "trainer"})
    chat = ann.post("/api/conversations", json={}).json()["id"]
    ann.delete(f"/api/conversations/{chat}")
    ann.delete("/api/conversations/999")
    ann.get("/api/export")
    ann.post("/api/versions/v1/promote")
    ann.post("/api/import", content=b'{"prompt": "Hi"}')
    ann.post("/api/me/keys", json={"name": "notebook"})
    ann.post("/api/invitations", json={"role": "reader"})
    entries = ann.get("/api/audit").json()
    actions = [entry["action"] for entry in entries]
    assert actions[:8] == [
        "invite", "make_key", "import", "promote", "export", "delete_conversation", "role",
        "sign_in",
    ]  # fmt: skip
    assert {entry["person_id"] for entry in entries[:8]} == {team.ids["Ann"]}
    deleted = entries[5]["detail"]
    assert deleted == {"conversation_id": str(chat), "name": "Ann"}
    page = ann.get(f"/api/audit?before_id={entries[1]['id']}&limit=2").json()
    assert [entry["action"] for entry in page] == ["import", "promote"]


def test_tampering_with_the_audit_log_is_found(team):
    ann = team.browser("Ann")
    ann.get("/api/export")
    before = ann.get("/api/audit/verify").json()
    assert before["intact"] is True
    assert audit.holds_hash(team.app.db, before["sha256"])
    with team.app.db.transaction() as connection:
        connection.execute("DROP TRIGGER audit_log_never_shrinks")
        connection.execute("DELETE FROM audit_log WHERE action = 'export'")
    after = ann.get("/api/audit/verify").json()
    assert after["intact"] is False
    assert not audit.holds_hash(team.app.db, before["sha256"])


def test_times_are_told_in_utc(team):
    made = team.browser("Rae").get("/api/me/sessions").json()[0]
    created = datetime.datetime.fromisoformat(made["created_at"])
    expires = datetime.datetime.fromisoformat(made["expires_at"])
    assert (expires - created).days in (29, 30)
    assert abs(datetime.datetime.now(datetime.UTC) - created).total_seconds() < 60
