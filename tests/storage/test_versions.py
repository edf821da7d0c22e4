from __future__ import annotations

import pytest

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage import runs, versions
from storage.database import Database
from storage.people import broken_audit_entry, list_audit

HASH = "0123456789abcdef" * 4


def register(db: Database, *names: str, state: str = "ready") -> None:
    for name in names:
        versions.register_version(db, name, None, None, HASH, {}, "", state=state)


def running(db: Database) -> runs.Run:
    runs.enqueue_run(db, ["ppo"], "local", {}, 0)
    run = runs.claim_run(db, "w", 1, "b")
    assert run is not None
    return run


def publish(db: Database, run: runs.Run, name: str, **change: object) -> versions.Version:
    fields = {"parent": "v0", "manifest_sha256": HASH, "metrics": {"kl": 1.5}, "note": "n"}
    extra = {"promote": True, **fields, **change}
    return versions.publish(db, run_id=run.id, fence=run.fence, name=name, **extra)


def test_names_count_up_by_number(db: Database) -> None:
    assert versions.next_version_name(db) == "v0"
    register(db, "v0", "v9", "v10")
    assert versions.next_version_name(db) == "v11"


@pytest.mark.parametrize("name", ["v", "v01", "3", "V3", "v-1", "v1\n", "../v1", "v1234567890", ""])
def test_other_names_are_refused(name: str, db: Database) -> None:
    with pytest.raises(BadInputError, match="such as v3"):
        register(db, name)


@pytest.mark.parametrize("sha256", ["0" * 63, "G" * 64, "A" * 64, "0" * 64 + "\n"])
def test_other_hashes_are_refused(sha256: str, db: Database) -> None:
    with pytest.raises(BadInputError, match="manifest hash"):
        versions.register_version(db, "v1", None, None, sha256, {}, "")


def test_a_version_is_kept_with_its_metrics(db: Database) -> None:
    register(db, "v0")
    made = versions.register_version(db, "v1", "v0", None, HASH, {"x": float("nan"), "n": 2}, "é")
    assert versions.get_version(db, "v1") == made
    assert (made.parent, made.metrics, made.note) == ("v0", {"x": None, "n": 2}, "é")
    assert [version.name for version in versions.list_versions(db)] == ["v0", "v1"]
    with pytest.raises(ConflictError, match="v1 already"):
        register(db, "v1")
    with pytest.raises(NotFoundError, match="'v8'"):
        versions.register_version(db, "v2", "v8", None, HASH, {}, "")
    with pytest.raises(NotFoundError, match="round 5"):
        versions.register_version(db, "v2", "v1", 5, HASH, {}, "")
    with pytest.raises(NotFoundError, match="'v7'"):
        versions.get_version(db, "v7")


def test_promoting_keeps_what_was_live_as_previous(db: Database) -> None:
    register(db, "v0", "v1", "v2")
    assert versions.get_alias(db, "live") is None
    versions.promote(db, "v0", "local")
    assert versions.list_aliases(db) == {"live": "v0"}
    versions.promote(db, "v1", "local")
    versions.promote(db, "v2", "local")
    versions.promote(db, "v2", "local")  # changes nothing
    assert versions.list_aliases(db) == {"live": "v2", "previous": "v1"}
    assert [entry.action for entry in list_audit(db)] == ["promote"] * 3
    assert broken_audit_entry(db) is None


@pytest.mark.parametrize("state", ["candidate", "rejected", "quarantined", "retired"])
def test_only_a_ready_version_goes_live(state: str, db: Database) -> None:
    register(db, "v0", state=state)
    with pytest.raises(ConflictError, match=f"v0 is {state}"):
        versions.promote(db, "v0", "local")
    assert versions.list_aliases(db) == {}


def test_rolling_back_can_itself_be_rolled_back(db: Database) -> None:
    register(db, "v0", "v1")
    versions.promote(db, "v0", "local")
    with pytest.raises(ConflictError, match="no previous version"):
        versions.rollback(db, "local")
    versions.promote(db, "v1", "local")
    assert versions.rollback(db, "local") == "v0"
    assert versions.list_aliases(db) == {"live": "v0", "previous": "v1"}
    assert versions.rollback(db, "local") == "v1"
    assert list_audit(db)[-1].detail == {"by": "local", "version": "v1", "instead_of": "v0"}


def test_publishing_adds_the_version_and_moves_the_alias_together(db: Database) -> None:
    register(db, "v0")
    versions.promote(db, "v0", "local")
    run = running(db)
    made = publish(db, run, "v1")
    assert (made.run_id, made.parent, made.metrics) == (run.id, "v0", {"kl": 1.5})
    assert versions.list_aliases(db) == {"live": "v1", "previous": "v0"}
    publish(db, run, "v2", promote=False, state="rejected")
    assert versions.get_alias(db, "live") == "v1"
    assert [version.name for version in versions.versions_of_run(db, run.id)] == ["v1", "v2"]
    assert runs.get_run(db, run.id).state == "running"


def test_a_stale_worker_cannot_publish(db: Database) -> None:
    register(db, "v0")
    versions.promote(db, "v0", "local")
    stale = running(db)
    runs.release_run(db, stale.id, "hung")
    with pytest.raises(ConflictError, match="queued under fence 1"):
        publish(db, stale, "v1")
    runs.claim_run(db, "w2", 2, "b")
    with pytest.raises(ConflictError, match="fence 2"):
        publish(db, stale, "v1")
    assert versions.list_aliases(db) == {"live": "v0"}
    assert [version.name for version in versions.list_versions(db)] == ["v0"]


def test_a_publish_that_may_not_go_live_adds_nothing(db: Database) -> None:
    register(db, "v0")
    run = running(db)
    with pytest.raises(ConflictError, match="v1 is rejected"):
        publish(db, run, "v1", state="rejected")
    assert [version.name for version in versions.list_versions(db)] == ["v0"]


def test_quarantine_lets_the_previous_version_speak(db: Database) -> None:
    register(db, "v0", "v1", "v2")
    for name in ("v0", "v2", "v1"):
        versions.promote(db, name, "local")
    assert versions.quarantine(db, "v1", "hash differs") == "v2"
    assert versions.list_aliases(db) == {"live": "v2"}
    bad = versions.get_version(db, "v1")
    assert (bad.state, bad.note) == ("quarantined", "Quarantined: hash differs")
    assert versions.quarantine(db, "v2", "NaN") == "v0"
    assert versions.quarantine(db, "v0", "gone") is None
    assert versions.list_aliases(db) == {}


def test_quarantine_of_another_version_leaves_the_live_one(db: Database) -> None:
    register(db, "v0", "v1", "v2")
    versions.promote(db, "v0", "local")
    versions.promote(db, "v1", "local")
    assert versions.quarantine(db, "v2", "x") == "v1"
    assert versions.quarantine(db, "v0", "x") == "v1"
    assert versions.list_aliases(db) == {"live": "v1"}


def test_versions_in_use_are_not_retired(db: Database) -> None:
    register(db, "v0", "v1")
    versions.promote(db, "v0", "local")
    versions.set_alias(db, "pinned", "v1")
    with pytest.raises(ConflictError, match="v1 is pinned"):
        versions.retire(db, "v1")
    versions.set_alias(db, "pinned", "v0")
    assert versions.retire(db, "v1").state == "retired"
    with pytest.raises(NotFoundError):
        versions.set_alias(db, "pinned", "v9")
