from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from fake_server import http_client, open_fake, wait_until_loaded

from chatrlhf.app import build_app
from chatrlhf.settings import ChatSettings, RoundSettings, Settings
from storage.database import Database, open_database


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def settings(tmp_path):
    """Duels by wish only: which turns are some is drawn from their seeds."""
    return replace(
        Settings(data_dir=tmp_path / "data"),
        round=RoundSettings(refit_every=3),
        chat=ChatSettings(duels=0.0),
    )


@pytest.fixture
def app(settings, engine):
    built = build_app(settings, with_trainer=False, open_engine=open_fake(engine))
    built.start()
    wait_until_loaded(built)
    yield built
    built.stop()


@pytest.fixture
def client(app):
    with http_client(app) as http:
        yield http


@pytest.fixture
def conversation(client) -> int:
    return client.post("/api/conversations", json={}).json()["id"]


@pytest.fixture
def turn(client, conversation) -> dict:
    """A finished turn of four replies."""
    answer = client.post(f"/api/conversations/{conversation}/turns", json={"text": "Hello"})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def rank(client):
    """Rank a turn's replies, in shown order by default."""

    def post(turn: dict, ranks=(1, 2, 3, 4), **more):
        by_id = {str(r["id"]): rank for r, rank in zip(turn["replies"], ranks, strict=True)}
        return client.post(f"/api/turns/{turn['turn_id']}/ranking", json={"ranks": by_id, **more})

    return post


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of commands."""
    folder = tmp_path / "data"
    monkeypatch.setenv("CHATRLHF_DATA", str(folder))
    return folder


@pytest.fixture
def db(data: Path) -> Iterator[Database]:
    opened = open_database(data / "chatrlhf.db")
    yield opened
    opened.close()
