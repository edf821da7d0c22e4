"""Old versions' files go; what is live, was live, or is a parent of those stays."""

from __future__ import annotations

import pytest

from chatrlhf.errors import BadInputError, ConflictError
from chatrlhf.loop.old_versions import OldVersion, old_versions, remove_old
from chatrlhf.settings import Settings
from storage import versions
from storage.database import open_database


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path)


@pytest.fixture
def db(settings):
    made = open_database(settings.database_path)
    yield made
    made.close()


@pytest.fixture
def add(db, settings):
    def make(name, parent=None, state="ready", size=10):
        versions.register_version(db, name, parent, None, "0" * 64, {}, "", state=state)
        folder = settings.versions_dir / name
        (folder / "reward").mkdir(parents=True)
        (folder / "reward" / "weights").write_bytes(b"x" * size)

    return make


def names(found):
    return [old.name for old in found]


def test_what_is_live_previous_or_their_parent_stays(db, settings, add):
    add("v0")
    for number in range(1, 7):
        add(f"v{number}", f"v{number - 1}")
    versions.promote(db, "v2", "me")
    versions.promote(db, "v5", "me")
    # Live v5 (parent v4) and previous v2 (parent v1).
    assert names(old_versions(db, settings, keep=0)) == ["v0", "v3", "v6"]
    assert names(old_versions(db, settings, keep=3)) == ["v0", "v3"]
    assert names(old_versions(db, settings, keep=7)) == []


def test_states(db, settings, add):
    for number, state in enumerate(("retired", "rejected", "quarantined", "candidate", "ready")):
        add(f"v{number}", state=state, size=number + 1)
    found = old_versions(db, settings, keep=0)
    assert found == [
        OldVersion("v0", "retired", 1),
        OldVersion("v1", "rejected", 2),
        OldVersion("v4", "ready", 5),
    ]


def test_removing_retires_frees_and_is_done_once(db, settings, add):
    add("v0")
    add("v1")
    versions.promote(db, "v1", "me")
    (old,) = old_versions(db, settings, keep=0)
    remove_old(db, settings, old)
    remove_old(db, settings, old)
    assert versions.get_version(db, "v0").state == "retired"
    assert [path.name for path in settings.versions_dir.iterdir()] == ["v1"]
    assert old_versions(db, settings, keep=0) == []


def test_one_that_has_come_live_since_stays(db, settings, add):
    add("v0")
    (old,) = old_versions(db, settings, keep=0)
    versions.promote(db, "v0", "me")
    with pytest.raises(ConflictError, match="live"):
        remove_old(db, settings, old)
    assert (settings.versions_dir / "v0").is_dir()


def test_a_negative_number_is_refused(db, settings):
    with pytest.raises(BadInputError, match="-1"):
        old_versions(db, settings, keep=-1)
