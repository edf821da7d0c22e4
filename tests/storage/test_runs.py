from __future__ import annotations

import math
import threading

import pytest

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage import runs
from storage.database import Database
from storage.people import ensure_local_person, list_audit
from storage.records import Metric, Run, Sample
from storage.versions import register_version


def enqueue(db: Database, last_ranking_id: int = 3) -> Run:
    return runs.enqueue_run(db, ["reward", "ppo"], "local", {"steps": 2}, last_ranking_id)


def claim(db: Database) -> Run:
    run = runs.claim_run(db, "worker", 41, "boot")
    assert run is not None
    return run


def beat(db: Database, run: Run, **change: object) -> bool:
    report = {"stage": "ppo", "step": 1, "steps": 9, "eta_seconds": 2.5, "message": "PPO"}
    return runs.heartbeat(db, run.id, run.fence, **{**report, **change})


def test_a_run_goes_from_queued_to_succeeded(db: Database) -> None:
    queued = enqueue(db)
    assert (queued.state, queued.stages, queued.settings) == (
        "queued",
        ("reward", "ppo"),
        {"steps": 2},
    )
    running = claim(db)
    assert (running.id, running.state, running.owner) == (queued.id, "running", "worker")
    assert (running.pid, running.boot_id) == (41, "boot")
    assert (running.fence, running.attempts) == (1, 1)
    assert beat(db, running)
    now = runs.current_run(db)
    assert now is not None
    assert now.heartbeat == running.heartbeat + 1
    assert (now.stage, now.step, now.steps, now.eta_seconds, now.message) == (
        "ppo",
        1,
        9,
        2.5,
        "PPO",
    )
    with_data = runs.set_dataset(db, running.id, running.fence, "hash", 7)
    assert (with_data.dataset_hash, with_data.last_ranking_id) == ("hash", 7)
    register_version(db, "v0", None, running.id, "", {}, "")
    done = runs.finish_run(db, running.id, running.fence, "succeeded", "Better.", "v0")
    assert (done.state, done.message, done.result_version) == ("succeeded", "Better.", "v0")
    assert done.ended_at is not None
    assert runs.current_run(db) is None
    assert runs.list_runs(db) == [done] == [runs.get_run(db, done.id)]
    assert runs.last_trained_ranking_id(db) == 7
    assert not beat(db, running)


def test_one_run_at_a_time(db: Database) -> None:
    first = enqueue(db)
    with pytest.raises(ConflictError, match=f"round {first.id} is queued"):
        enqueue(db)
    running = claim(db)
    with pytest.raises(ConflictError, match="is running"):
        enqueue(db)
    assert runs.claim_run(db, "other", 42, "boot") is None
    runs.finish_run(db, running.id, running.fence, "skipped", "Nothing to train on.")
    assert enqueue(db).id > first.id


def test_the_database_itself_refuses_two_open_runs(db: Database) -> None:
    enqueue(db)
    with pytest.raises(ConflictError, match="UNIQUE"), db.transaction() as connection:
        connection.execute(
            "INSERT INTO runs (state, stages, requested_by, last_ranking_id, settings, created_at) "
            "VALUES ('running', '[]', '', 0, '{}', '')"
        )


@pytest.mark.parametrize("stages", [[], ["reward", "reward"], ["dpo"]])
def test_unknown_stages_are_refused(stages, db: Database) -> None:
    with pytest.raises(BadInputError, match="sft, reward, ppo"):
        runs.enqueue_run(db, stages, "local", {}, 0)


def test_two_workers_never_claim_the_same_run(db: Database) -> None:
    enqueue(db)
    claimed: list[Run | None] = []
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        claimed.append(runs.claim_run(db, f"worker {number}", number, "boot"))

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(run is not None for run in claimed) == 1


def test_a_stale_worker_can_write_nothing(db: Database) -> None:
    enqueue(db)
    stale = claim(db)
    released = runs.release_run(db, stale.id, "The worker hung; resuming.")
    assert (released.state, released.owner, released.pid) == ("queued", None, None)
    writes = [
        lambda: runs.set_dataset(db, stale.id, stale.fence, "hash", 9),
        lambda: runs.add_metrics(db, stale.id, stale.fence, [Metric("ppo", 1, "kl", 0.1)]),
        lambda: runs.add_samples(db, stale.id, stale.fence, [Sample("ppo", 1, "p", "r", None)]),
        lambda: runs.finish_run(db, stale.id, stale.fence, "succeeded", "Late."),
        lambda: register_version(db, "v0", None, stale.id, "", {}, "", fence=stale.fence),
    ]
    for write in writes:  # while nobody holds it
        with pytest.raises(ConflictError, match="stop this worker"):
            write()
    again = claim(db)
    assert (again.id, again.fence, again.attempts) == (stale.id, 2, 2)
    assert again.started_at == stale.started_at
    for write in writes:  # while another worker holds it
        with pytest.raises(ConflictError, match="under fence 2, so a worker with fence 1"):
            write()
    assert not beat(db, stale)
    assert beat(db, again)
    assert runs.list_metrics(db, again.id) == []
    assert runs.get_run(db, again.id).last_ranking_id == 3


def test_a_cancelled_run_stops_its_worker_and_is_audited(db: Database) -> None:
    me = ensure_local_person(db)
    enqueue(db)
    running = claim(db)
    assert runs.cancel_run(db, running.id, "local").state == "cancelled"
    assert not beat(db, running)
    with pytest.raises(ConflictError, match="is cancelled"):
        runs.cancel_run(db, running.id, "local")
    (entry,) = list_audit(db)
    assert (entry.person_id, entry.action, entry.detail["round"]) == (
        me.id,
        "cancel_round",
        running.id,
    )


def test_the_supervisor_can_give_a_run_up(db: Database) -> None:
    queued = enqueue(db)
    with pytest.raises(ConflictError, match="is queued, not running"):
        runs.release_run(db, queued.id, "")
    assert runs.fail_run(db, queued.id, "Out of memory three times.").state == "failed"
    with pytest.raises(ConflictError, match="is failed"):
        runs.fail_run(db, queued.id, "")
    assert runs.last_trained_ranking_id(db) == 0


def test_a_run_ends_in_an_end_state_with_a_known_version(db: Database) -> None:
    enqueue(db)
    run = claim(db)
    with pytest.raises(BadInputError, match="cannot end as 'running'"):
        runs.finish_run(db, run.id, run.fence, "running", "")
    with pytest.raises(NotFoundError, match="v9"):
        runs.finish_run(db, run.id, run.fence, "succeeded", "", "v9")
    assert runs.get_run(db, run.id).state == "running"
    with pytest.raises(NotFoundError, match="no round 99"):
        runs.finish_run(db, 99, 1, "failed", "")


def test_skipped_runs_count_as_having_looked(db: Database) -> None:
    for state, last in [("succeeded", 5), ("skipped", 9), ("failed", 20), ("cancelled", 30)]:
        enqueue(db, last)
        run = claim(db)
        runs.finish_run(db, run.id, run.fence, state, "")
    assert runs.last_trained_ranking_id(db) == 9
    assert [run.last_ranking_id for run in runs.list_runs(db, limit=2)] == [30, 20]


def test_metrics_are_read_on_from_the_last_one(db: Database) -> None:
    enqueue(db)
    run = claim(db)
    runs.add_metrics(
        db, run.id, run.fence, [Metric("reward", 1, "loss", 0.5), Metric("ppo", 1, "kl", math.inf)]
    )
    first = runs.list_metrics(db, run.id)
    assert [(item.stage, item.name, item.value) for item in first] == [
        ("reward", "loss", 0.5),
        ("ppo", "kl", math.inf),
    ]
    runs.add_metrics(db, run.id, run.fence, [Metric("reward", 1, "loss", math.nan)])  # resumed
    (newer,) = runs.list_metrics(db, run.id, after_rowid=first[-1].id)
    assert math.isnan(newer.value)
    assert [item.name for item in runs.list_metrics(db, run.id, stage="reward")] == ["loss"]


def test_samples_and_events_give_the_newest_in_order(db: Database) -> None:
    enqueue(db)
    run = claim(db)
    samples = [
        Sample("ppo", step, "p", f"r{step}\x00", step / 2, terms={"ranking": step / 4})
        for step in range(4)
    ]
    runs.add_samples(db, run.id, run.fence, samples)
    runs.add_samples(db, run.id, run.fence, [Sample("reward", 9, "p", "r", None)])
    newest = runs.list_samples(db, run.id, stage="ppo", limit=2)
    assert [(item.step, item.reply, item.score, item.terms) for item in newest] == [
        (2, "r2\ufffd", 1.0, {"ranking": 0.5}),
        (3, "r3\ufffd", 1.5, {"ranking": 0.75}),
    ]
    for number in range(4):
        runs.add_event(db, run.id, "info", f"event {number}", {"n": number})
    events = runs.list_events(db, limit=2)
    assert [event.text for event in events] == ["event 2", "event 3"]
    assert events[1].data == {"n": 3}
    assert runs.list_events(db, run.id, after_id=events[0].id) == [events[1]]
    assert runs.list_events(db, run.id + 1) == []
    with pytest.raises(BadInputError, match="kind"):
        runs.add_event(db, run.id, "party", "x")
    with pytest.raises(NotFoundError):
        runs.add_event(db, 99, "info", "x")


def test_state_keeps_json(db: Database) -> None:
    assert runs.get_state(db, "paused") is None
    assert runs.get_state(db, "paused", default=False) is False
    runs.set_state(db, "paused", {"paused": True, "by": "é"})
    runs.set_state(db, "paused", {"paused": False})
    assert runs.get_state(db, "paused") == {"paused": False}
