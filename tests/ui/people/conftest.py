"""The fixtures of tests/ui, and a team."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine
from fake_server import open_fake, wait_until_loaded
from team import CHEAP, Team

from chatrlhf.app import build_app
from chatrlhf.settings import Settings
from ui import passwords


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    monkeypatch.setattr(passwords, "HASHER", CHEAP)
    monkeypatch.setattr(passwords, "_nobody", [])


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def app(settings):
    built = build_app(settings, with_trainer=False, open_engine=open_fake(FakeEngine()))
    built.start()
    wait_until_loaded(built)
    yield built
    built.stop()


@pytest.fixture
def team(app):
    """Ann is admin, Tom trainer, Rae and Bob raters, Rex a reader."""
    made = Team(app)
    for name, role in (
        ("Ann", "admin"),
        ("Tom", "trainer"),
        ("Rae", "rater"),
        ("Bob", "rater"),
        ("Rex", "reader"),
    ):
        made.add(name, role)
    return made
