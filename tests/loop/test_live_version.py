"""The live version follows its alias, and a broken version never takes the chat down."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine
from waiting import wait_for

from chatrlhf.errors import ConflictError, ModelError, NotFoundError, VersionError
from chatrlhf.loop.live_version import LiveVersion
from storage import runs, versions
from storage.database import open_database


@pytest.fixture
def db(tmp_path):
    database = open_database(tmp_path / "chat.db")
    for name in ("v0", "v1", "v2"):
        versions.register_version(database, name, None, None, "", {}, "")
    versions.set_alias(database, "live", "v0")
    yield database
    database.close()


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def live(db, engine, tmp_path):
    watcher = LiveVersion(db, engine, lambda name: tmp_path / name, poll_seconds=0.02)
    yield watcher
    watcher.stop()


def test_at_start_the_alias_is_served(engine, live, tmp_path):
    live.start()
    assert engine.live == "v0"
    assert engine.resident == {"v0": tmp_path / "v0"}


def test_a_version_that_the_trainer_publishes_goes_live_by_itself(db, engine, live):
    live.start()
    versions.promote(db, "v1", "trainer")
    wait_for(lambda: engine.live == "v1", 10.0)


def test_a_published_version_that_is_broken_is_quarantined_and_the_old_one_serves_on(
    db, engine, live
):
    live.start()
    run = runs.enqueue_run(db, ("ppo",), "local", {}, 0)
    versions.register_version(db, "v3", "v0", run.id, "", {}, "")
    engine.broken.add("v3")
    versions.promote(db, "v3", "trainer")
    wait_for(lambda: versions.get_version(db, "v3").state == "quarantined", 10.0)
    wait_for(lambda: versions.get_alias(db, "live") == "v0", 10.0)
    assert engine.live == "v0"
    wait_for(lambda: runs.list_events(db, run.id), 10.0)
    assert "v3 is broken" in runs.list_events(db, run.id)[0].text


def test_at_start_a_broken_version_gives_way_to_the_previous_one(db, engine, live):
    versions.promote(db, "v1", "local")
    versions.promote(db, "v2", "local")
    engine.broken.add("v2")
    live.start()
    assert engine.live == "v1"
    assert versions.get_alias(db, "live") == "v1"


def test_at_start_several_broken_versions_give_way_one_after_the_other(db, engine, live):
    versions.promote(db, "v2", "local")
    engine.broken.update({"v2", "v0"})
    live.start()
    assert engine.live == "v1"
    states = {row.name: row.state for row in versions.list_versions(db)}
    assert states == {"v0": "quarantined", "v1": "ready", "v2": "quarantined"}


def test_with_no_good_version_at_all_the_start_fails_in_words(engine, live):
    engine.broken.update({"v0", "v1", "v2"})
    with pytest.raises(ModelError, match="No adapter version"):
        live.start()


def test_files_that_fail_the_check_are_not_loaded(db, engine, tmp_path):
    def verify(name):
        raise VersionError(f"{name}: its SHA-256 differs.")

    live = LiveVersion(db, engine, verify)
    with pytest.raises(VersionError):
        live.promote("v1", "local")
    assert engine.resident == {}
    assert versions.get_alias(db, "live") == "v0"


def test_a_version_that_is_in_memory_is_not_loaded_again(engine, live):
    live.start()
    live.ensure_resident("v1")
    engine.broken.add("v1")
    live.ensure_resident("v1")
    assert set(engine.resident) == {"v0", "v1"}


def test_unknown_and_retired_versions_are_refused(db, live):
    versions.retire(db, "v2")
    with pytest.raises(NotFoundError):
        live.ensure_resident("v9")
    with pytest.raises(ConflictError):
        live.ensure_resident("v2")


def test_a_trouble_that_passes_is_tried_again_and_nothing_is_quarantined(db, engine, live):
    live.start()
    real, calls = engine.load_version, []

    def flaky(name, folder):
        calls.append(name)
        if len(calls) == 1:
            raise OSError("the disk hiccups")
        real(name, folder)

    engine.load_version = flaky
    versions.promote(db, "v1", "trainer")
    wait_for(lambda: engine.live == "v1", 10.0)
    assert versions.get_version(db, "v1").state == "ready"
