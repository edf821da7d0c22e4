from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatrlhf.errors import ConflictError, DataFolderBusyError
from chatrlhf.loop.supervisor import Pace, Supervisor
from chatrlhf.loop.trainer_process import TrainerProcess
from chatrlhf.settings import RoundSettings, Settings
from storage import conversations, people, rankings, runs
from storage.conversations import NewReply
from storage.database import Database, open_database
from storage.records import Run

FAKE_TRAINER = Path(__file__).resolve().parents[1] / "support" / "fake_trainer.py"
QUICK = Pace(poll=0.05, grace=0.5, retry=0.01)


class Bench:
    """A data folder, a supervisor on it, and what its fake trainer does at each attempt."""

    def __init__(self, folder: Path, **round_settings: object) -> None:
        self.folder = folder
        self.settings = Settings(folder, round=RoundSettings(**round_settings))
        self.db: Database = open_database(self.settings.database_path)
        self.ended = 0
        self.clock: Callable[[], float] = time.monotonic
        self.supervisor = self.new_supervisor()

    def new_supervisor(self) -> Supervisor:
        return Supervisor(
            self.settings,
            self.db,
            on_new_version=self._count,
            build_command=lambda settings, run_id: [
                sys.executable,
                str(FAKE_TRAINER),
                str(settings.data_dir),
                str(run_id),
            ],
            pace=QUICK,
            clock=lambda: self.clock(),
        )

    def behave(self, *behaviours: str) -> None:
        (self.folder / "behaviours").write_text("\n".join(behaviours))

    def rank(self, count: int) -> None:
        person = people.ensure_local_person(self.db).id
        for _ in range(count):
            conversation = conversations.create_conversation(self.db, person)
            rows = [NewReply(position, "v0", 1, {}) for position in range(2)]
            turn = conversations.create_turn(self.db, conversation.id, "Hello?", None, rows)
            for reply in turn.replies:
                conversations.finish_reply(
                    self.db,
                    reply.id,
                    text="Hello.",
                    token_ids=[1],
                    logprobs=[-1.0],
                    finish_reason="stop",
                    state="complete",
                )
            ranks = {reply.id: place for place, reply in enumerate(turn.replies, 1)}
            rankings.save_ranking(self.db, turn.id, person, ranks)

    def newest(self) -> Run | None:
        return next(iter(runs.list_runs(self.db, 1)), None)

    def pids(self) -> list[int]:
        path = self.folder / "attempts"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def wait(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen: {self.newest()}"
            time.sleep(0.02)

    def wait_for_state(self, state: str) -> Run:
        self.wait(lambda: (run := self.newest()) is not None and run.state == state)
        run = self.newest()
        assert run is not None
        return run

    def log(self, name: str = "trainer.log", run_id: int = 1) -> str:
        return (self.settings.runs_dir / str(run_id) / name).read_text()

    def _count(self) -> None:
        self.ended += 1


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**round_settings: object) -> Bench:
        made.append(Bench(tmp_path / "data", **round_settings))
        return made[-1]

    yield make
    for bench in made:
        bench.supervisor.stop()
        bench.db.close()


def test_a_requested_round_runs_and_its_end_is_told(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.behave("succeed")
    bench.supervisor.start()
    run = bench.supervisor.request_round(["ppo", "reward"], "local")
    assert run.stages == ("reward", "ppo")
    ended = bench.wait_for_state("succeeded")
    bench.wait(lambda: bench.ended)
    assert ended.attempts == 1
    assert bench.ended == 1
    assert "attempt 0 works" in bench.log()
    assert bench.supervisor.status() == {
        "state": "idle",
        "next_refit_in": 20,
        "stage": None,
        "step": 0,
        "steps": 0,
        "eta_seconds": None,
        "run_id": 1,
        "message": "It succeeded.",
    }


def test_a_killed_trainer_is_resumed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.behave("die-9", "succeed")
    bench.supervisor.start()
    bench.supervisor.request_round()
    ended = bench.wait_for_state("succeeded")
    assert ended.attempts == 2
    events = [event.text for event in runs.list_events(bench.db, ended.id)]
    assert events == [
        "Attempt 1 of 3: the trainer was killed by signal 9 (often: out of memory); "
        "its last line: attempt 0 works."
    ]
    assert "attempt 1 works" in bench.log()
    assert "attempt 0 works" in bench.log("trainer.1.log")


def test_a_trainer_that_keeps_dying_fails_the_round_in_words(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(attempts=3)
    bench.behave("die-9", "die-early", "die-9", "succeed")
    bench.supervisor.start()
    bench.supervisor.request_round()
    ended = bench.wait_for_state("failed")
    assert ended.message == (
        "Failed after 3 attempts: the trainer was killed by signal 9 (often: out of memory); "
        "its last line: attempt 2 works."
    )
    assert len(bench.pids()) == 3
    assert bench.supervisor.status()["state"] == "failed"
    texts = [event.text for event in runs.list_events(bench.db, ended.id)]
    assert "exit code 1; its last line: Traceback: no module named torch" in texts[1]


def test_a_round_that_fails_by_itself_is_not_tried_again(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.behave("fail", "succeed")
    bench.supervisor.start()
    bench.supervisor.request_round()
    ended = bench.wait_for_state("failed")
    bench.wait(lambda: bench.ended)
    assert ended.message == "It failed."
    assert len(bench.pids()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")
def test_a_trainer_that_hangs_is_killed_and_resumed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(heartbeat_timeout_seconds=100)
    bench.behave("hang", "succeed")
    now = 1000.0
    bench.clock = lambda: now
    bench.supervisor.request_round()
    bench.supervisor.look()
    bench.wait(lambda: bench.pids() and process_state(bench.pids()[0]).startswith("T"))
    bench.supervisor.look()  # sees the last heartbeat
    now += 99.0
    bench.supervisor.look()
    assert bench.newest().state == "running"
    now += 1.0
    bench.supervisor.look()
    assert not is_alive(bench.pids()[0])
    assert bench.newest().state == "queued"
    (event,) = runs.list_events(bench.db, 1)
    assert "gave no sign of life for 100 seconds" in event.text
    now += 1.0  # past the wait before the next attempt
    bench.supervisor.start()
    assert bench.wait_for_state("succeeded").attempts == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")
def test_time_without_a_core_is_no_silence(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(heartbeat_timeout_seconds=100)
    bench.behave("hang")
    now, starved = 1000.0, 5.0
    bench.clock = lambda: now
    monkeypatch.setattr(TrainerProcess, "starved_seconds", lambda self: starved)
    bench.supervisor.request_round()
    bench.supervisor.look()
    bench.wait(lambda: bench.pids() and process_state(bench.pids()[0]).startswith("T"))
    bench.supervisor.look()  # sees the last heartbeat
    now, starved = now + 1000.0, starved + 901.0
    bench.supervisor.look()
    assert bench.newest().state == "running"
    now += 1.0
    bench.supervisor.look()
    assert bench.newest().state == "queued"


def test_a_trainer_that_beats_is_left_alone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(heartbeat_timeout_seconds=100)
    bench.behave("beat")
    now = 1000.0
    bench.clock = lambda: now
    bench.supervisor.request_round()
    bench.supervisor.look()
    bench.wait_for_state("running")
    for _ in range(5):
        beat = bench.newest().heartbeat
        bench.wait(lambda beat=beat: bench.newest().heartbeat > max(beat, 2))
        now += 99.0
        bench.supervisor.look()
    status = bench.supervisor.status()
    assert (status["state"], status["stage"], status["step"]) == ("running", "reward", 2)
    assert runs.list_events(bench.db, 1) == []
    assert len(bench.pids()) == 1


def test_a_run_that_another_process_has_is_taken_back_only_when_silent(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(heartbeat_timeout_seconds=100)
    bench.behave("succeed")
    now = 1000.0
    bench.clock = lambda: now
    runs.enqueue_run(bench.db, ["reward"], "local", {}, 0)
    run = runs.claim_run(bench.db, "stranger", 1, "boot")
    for _ in range(3):
        bench.supervisor.look()
        now += 99.0
        runs.heartbeat(
            bench.db, 1, run.fence, stage="ppo", step=1, steps=2, eta_seconds=None, message=""
        )
    bench.supervisor.look()
    now += 100.0
    assert bench.newest().state == "running"
    bench.supervisor.look()
    assert bench.newest().state == "queued"
    assert bench.pids() == []


def test_a_round_without_a_reward_model_leaves_rankings_new(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(refit_every=5)
    bench.behave("succeed", "succeed")
    bench.rank(3)
    bench.supervisor.start()
    bench.supervisor.request_round(["sft"], "local")
    bench.wait_for_state("succeeded")
    assert bench.supervisor.status()["next_refit_in"] == 2


def test_stopping_hands_the_round_to_the_next_start(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(attempts=1)
    bench.behave("beat", "succeed")
    bench.supervisor.start()
    bench.supervisor.request_round()
    bench.wait_for_state("running")
    bench.supervisor.stop()
    assert not is_alive(bench.pids()[0])
    assert bench.newest().state == "queued"
    assert "next start" in bench.newest().message
    # An orderly stop is no crash: a single allowed attempt is still there.
    bench.supervisor = bench.new_supervisor()
    bench.supervisor.start()
    assert bench.wait_for_state("succeeded").attempts == 2


def test_a_run_of_a_dead_program_is_resumed_at_start(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.behave("succeed")
    runs.enqueue_run(bench.db, ["reward"], "local", {}, 0)
    runs.claim_run(bench.db, "gone", 1, "another boot")
    bench.supervisor.start()
    ended = bench.wait_for_state("succeeded")
    assert (ended.attempts, ended.fence) == (2, 2)


def test_a_run_that_takes_the_program_down_each_time_is_given_up(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(attempts=2)
    runs.enqueue_run(bench.db, ["reward"], "local", {}, 0)
    for _ in range(2):
        bench.supervisor.pause()
        runs.claim_run(bench.db, "gone", 1, "boot")
        bench.supervisor.start()
        bench.supervisor.stop()
        bench.supervisor = bench.new_supervisor()
    assert bench.newest().state == "failed"
    assert "the program ended while the round ran" in bench.newest().message


def test_a_round_starts_at_exactly_the_set_number_of_rankings(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(refit_every=3)
    bench.behave("succeed", "succeed")
    bench.rank(2)
    bench.supervisor.look()
    assert bench.newest() is None
    assert bench.supervisor.status()["next_refit_in"] == 1
    bench.rank(1)
    bench.supervisor.start()
    first = bench.wait_for_state("succeeded")
    assert (first.requested_by, first.last_ranking_id) == ("automatic", 3)
    assert first.stages == ("sft", "reward", "ppo")
    bench.wait(lambda: bench.ended)
    assert bench.supervisor.status()["next_refit_in"] == 3
    bench.rank(2)
    bench.supervisor.poke()
    time.sleep(0.3)
    assert bench.newest().id == first.id
    bench.rank(1)
    bench.supervisor.poke()
    bench.wait(lambda: bench.ended == 2)
    assert bench.newest().last_ranking_id == 6
    assert len(runs.list_runs(bench.db)) == 2


def test_after_a_failed_round_as_many_further_rankings_are_awaited(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(refit_every=2)
    bench.behave("fail", "succeed")
    bench.rank(3)
    bench.supervisor.start()
    bench.wait_for_state("failed")
    time.sleep(0.3)
    assert len(bench.pids()) == 1
    assert bench.supervisor.status()["next_refit_in"] == 2
    bench.rank(2)
    bench.supervisor.poke()
    assert bench.wait_for_state("succeeded").last_ranking_id == 5


def test_rankings_during_a_round_count_for_the_next(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(refit_every=3)
    bench.behave("beat")
    bench.rank(3)
    bench.supervisor.start()
    bench.wait_for_state("running")
    bench.rank(2)
    assert bench.supervisor.status()["next_refit_in"] == 1
    bench.rank(2)
    assert bench.supervisor.status()["next_refit_in"] == 0
    assert len(runs.list_runs(bench.db)) == 1


def test_no_round_starts_by_itself_where_that_is_off(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(refit_every=1, automatic=False)
    bench.rank(2)
    bench.supervisor.start()
    time.sleep(0.3)
    assert bench.newest() is None


def test_paused_means_no_round_and_resuming_starts_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(refit_every=2)
    bench.behave("succeed")
    bench.supervisor.pause()
    bench.rank(2)
    bench.supervisor.start()
    time.sleep(0.3)
    assert bench.newest() is None
    assert bench.supervisor.status()["state"] == "paused"
    bench.supervisor.resume()
    bench.wait_for_state("succeeded")


def test_pausing_stops_a_running_round_which_goes_on_later(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(attempts=1)
    bench.behave("beat", "succeed")
    bench.supervisor.start()
    bench.supervisor.request_round()
    bench.wait_for_state("running")
    bench.supervisor.pause()
    bench.wait_for_state("queued")
    assert not is_alive(bench.pids()[0])
    bench.supervisor.resume()
    assert bench.wait_for_state("succeeded").attempts == 2


def test_a_cancelled_round_ends_its_trainer(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.behave("beat")
    bench.supervisor.start()
    run = bench.supervisor.request_round()
    bench.wait_for_state("running")
    runs.cancel_run(bench.db, run.id, "local")
    bench.wait(lambda: bench.ended)
    assert bench.newest().state == "cancelled"
    assert not is_alive(bench.pids()[0])


def test_a_trainer_that_finds_nothing_is_not_started_for_ever(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(attempts=2)
    bench.behave("nothing", "nothing", "nothing")
    bench.supervisor.start()
    bench.supervisor.request_round()
    assert "exit code 3" in bench.wait_for_state("failed").message
    assert len(bench.pids()) == 2


def test_two_requests_at_once_are_a_conflict(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.supervisor.request_round(["reward"], "local")
    with pytest.raises(ConflictError, match="queued"):
        bench.supervisor.request_round(["reward"], "local")


def test_a_second_supervisor_is_refused_until_the_first_stops(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    second = bench.new_supervisor()
    bench.supervisor.start()
    with pytest.raises(DataFolderBusyError, match=f"Process {os.getpid()} .*--no-trainer"):
        second.start()
    bench.supervisor.stop()
    second.start()
    second.stop()


def test_the_thread_outlives_an_error(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    bench.behave("succeed")
    failures = iter([OSError("disk full"), OSError("disk full")])
    look = bench.supervisor.look

    def failing_look() -> None:
        for failure in failures:
            raise failure
        look()

    monkeypatch.setattr(bench.supervisor, "look", failing_look)
    bench.supervisor.start()
    bench.supervisor.request_round()
    bench.wait_for_state("succeeded")


def is_alive(pid: int) -> bool:
    return process_state(pid)[:1] not in ("", "Z")


def process_state(pid: int) -> str:
    """What ps calls the state: S sleeping, R running, T stopped, Z ended; empty when gone."""
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
