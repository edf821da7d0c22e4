"""The application from start to stop: loading, failing, and what a stop leaves behind."""

from __future__ import annotations

import threading

import pytest
from fake_engine import FakeEngine
from fake_server import http_client, open_fake, wait_until_loaded
from waiting import wait_for

from chatrlhf.app import build_app
from chatrlhf.errors import (
    ConflictError,
    DataFolderBusyError,
    LoadingError,
    ModelError,
    UnknownModelError,
)
from chatrlhf.loop.open_engine import refuse_another_base
from chatrlhf.settings import Settings
from storage import conversations, prompts, versions
from storage.database import open_database

NEEDS_THE_ENGINE = [
    ("POST", "/api/conversations/1/turns", {"text": "Hello"}),
    ("POST", "/api/versions/rollback", None),
    ("POST", "/api/versions/v0/promote", None),
    (
        "POST",
        "/api/reward/score",
        {"messages": [{"role": "user", "content": "a"}], "replies": [""]},
    ),
    ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}),
]


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data")


def started(settings, open_engine):
    app = build_app(settings, with_trainer=False, open_engine=open_engine)
    app.start()
    return app


def test_while_the_model_loads_health_says_how_far_and_the_rest_works(settings):
    reached, go = threading.Event(), threading.Event()
    real = open_fake(FakeEngine())

    def slow(db, given, progress):
        progress("downloading", 0.25)
        reached.set()
        assert go.wait(30)
        return real(db, given, progress)

    app = started(settings, slow)
    try:
        assert reached.wait(30)
        with http_client(app) as client:
            health = client.get("/api/health").json()
            assert health["status"] == "loading"
            assert health["loading"] == {"stage": "downloading", "fraction": 0.25}
            assert health["live_version"] is None
            assert client.post("/api/conversations", json={}).status_code == 200
            for method, path, body in NEEDS_THE_ENGINE:
                answer = client.request(method, path, json=body)
                assert answer.status_code == 503, path
                assert answer.json()["error"]["code"] == "loading"
                assert "25%" in answer.json()["error"]["message"]
            go.set()
            wait_until_loaded(app)
            assert client.get("/api/health").json()["status"] == "ok"
            assert client.post(*NEEDS_THE_ENGINE[0][1:2], json={"text": "Hi"}).status_code == 200
    finally:
        go.set()
        app.stop()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UnknownModelError("There is no model 'qwem'. Did you mean qwen?"), "Did you mean qwen?"),
        (RuntimeError("libfoo is missing"), "libfoo is missing"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_said_to_have_failed(settings, error, words):
    def failing(_db, _settings, _progress):
        raise error

    app = started(settings, failing)
    try:
        wait_until_loaded(app)
        with http_client(app) as client:
            health = client.get("/api/health").json()
            assert health["status"] == "failed"
            assert words in health["message"]
            conversation = client.post("/api/conversations", json={}).json()["id"]
            answer = client.post(f"/api/conversations/{conversation}/turns", json={"text": "Hello"})
            assert answer.status_code == 503
            assert words in answer.json()["error"]["message"]
    finally:
        app.stop()


def test_a_stop_while_loading_ends_the_loading(settings):
    reached = threading.Event()

    def endless(_db, _settings, progress):
        while True:
            progress("downloading", 0.1)
            reached.set()

    app = started(settings, endless)
    assert reached.wait(30)
    app.stop()
    assert app.status == "loading"
    started(settings, open_fake(FakeEngine())).stop()


def test_two_servers_cannot_share_a_data_folder(settings):
    first = started(settings, open_fake(FakeEngine()))
    try:
        with pytest.raises(DataFolderBusyError):
            started(settings, open_fake(FakeEngine()))
    finally:
        first.stop()
    started(settings, open_fake(FakeEngine())).stop()


def test_a_stop_interrupts_what_streams_and_frees_the_folder(settings):
    engine = FakeEngine()
    engine.go.clear()
    app = started(settings, open_fake(engine))
    wait_until_loaded(app)
    with http_client(app) as client:
        conversation = client.post("/api/conversations", json={}).json()["id"]
        answers = []
        sender = threading.Thread(
            target=lambda: answers.append(
                client.post(f"/api/conversations/{conversation}/turns", json={"text": "Hello"})
            )
        )
        sender.start()
        wait_for(lambda: conversations.list_turns(app.db, conversation), 30.0)
        app.turns.stop(grace_seconds=0.0)
        sender.join(30)
    assert {reply["state"] for reply in answers[0].json()["replies"]} == {"interrupted"}
    app.stop()
    with pytest.raises(LoadingError):
        _ = app.db

    db = open_database(settings.database_path)
    replies = conversations.list_turns(db, conversation)[0].replies
    assert {reply.state for reply in replies} == {"interrupted"}
    assert len(replies) == 4
    db.close()


def test_replies_that_a_killed_server_left_are_interrupted_at_the_next_start(settings):
    app = started(settings, open_fake(FakeEngine()))
    made = conversations.create_conversation(app.db, app.person.id)
    row = conversations.NewReply(position=0, version="v0", seed=1, sampling={})
    app.stop()

    db = open_database(settings.database_path)
    conversations.create_turn(db, made.id, "Hello", None, [row])
    db.close()

    app = started(settings, open_fake(FakeEngine()))
    try:
        reply = conversations.list_turns(app.db, made.id)[0].replies[0]
        assert (reply.state, reply.finish_reason) == ("interrupted", "interrupted")
    finally:
        app.stop()


def test_the_pool_is_filled_once_and_left_alone_after_that(settings):
    app = started(settings, open_fake(FakeEngine()))
    shipped = len(prompts.list_prompts(app.db))
    assert shipped >= 100
    prompts.add_prompts(app.db, [("One more, of my own?", "", [])])
    app.stop()
    app = started(settings, open_fake(FakeEngine()))
    assert len(prompts.list_prompts(app.db)) == shipped + 1
    app.stop()


def test_versions_of_another_base_are_refused_and_not_quarantined(settings, tmp_path):
    (tmp_path / "manifest.json").write_text('{"base": {"name": "qwen3-4b", "sha256": "aa"}}')
    db = open_database(settings.database_path)
    versions.register_version(db, "v0", None, None, "", {}, "")
    refuse_another_base(db, lambda _name: tmp_path, "bb")  # nothing is live yet
    versions.set_alias(db, "live", "v0")
    refuse_another_base(db, lambda _name: tmp_path, "aa")
    with pytest.raises(ModelError, match="--model qwen3-4b"):
        refuse_another_base(db, lambda _name: tmp_path, "bb")
    assert versions.get_version(db, "v0").state == "ready"
    db.close()


def test_without_a_trainer_its_keeper_is_refused(settings):
    app = started(settings, open_fake(FakeEngine()))
    try:
        with pytest.raises(ConflictError):
            _ = app.supervisor
    finally:
        app.stop()
