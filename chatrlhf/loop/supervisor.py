"""Starts, watches and restarts the trainer process.

One thread looks at the database a few times a second. It starts a round when enough new
rankings are there, starts the trainer for a queued round, kills one that hangs, resumes one
that crashed, and says when a round ended. It judges by its own monotonic clock only, so moving
the wall clock changes nothing. One supervisor a data folder: a lock sees to it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chatrlhf.errors import ConflictError, DataFolderBusyError, NotFoundError
from chatrlhf.loop import trigger
from chatrlhf.loop.trainer_process import (
    BuildCommand,
    TrainerProcess,
    settings_environment,
    trainer_command,
    trainer_log,
)
from chatrlhf.loop.trainer_state import (
    CRASHES_KEY,
    crashes_of,
    is_paused,
    set_paused,
    trainer_status,
)
from chatrlhf.settings import Settings
from storage import runs
from storage.database import Database
from storage.locks import FileLock
from storage.records import Run, Stage

__all__ = ["Pace", "Supervisor", "is_paused", "set_paused", "trainer_status"]

log = logging.getLogger(__name__)

_NOT_OURS = (3, 4)  # exit codes: nothing to claim; the run was taken over or cancelled
_UNDER_WAY = ("queued", "running")


@dataclass(frozen=True)
class Pace:
    """How often the supervisor looks, and how long it waits; all in seconds."""

    poll: float = 0.5
    grace: float = 10.0
    retry: float = 2.0


@dataclass
class _Pulse:
    """The last heartbeat of a run, (run id, fence, sequence), and when it was first seen.

    The trainer has a low priority: on a busy machine it may get no core for minutes, which is no
    hang. ``starved`` is how long it had waited for one by then.
    """

    beat: tuple[int, int, int]
    since: float
    starved: float = 0.0

    def silence(self, run: Run, now: float, starved: float = 0.0) -> float:
        """Seconds for which the heartbeat has not moved though it could have."""
        beat = (run.id, run.fence, run.heartbeat)
        if beat != self.beat:
            self.beat, self.since, self.starved = beat, now, starved
        return now - self.since - (starved - self.starved)


@dataclass
class _Attempt:
    """A child at work on a run; ``ended_at`` is when the run was seen to be over."""

    run_id: int
    process: TrainerProcess
    ended_at: float | None = None


class Supervisor:
    """The trainer's keeper.

    ``on_new_version`` is called, from its thread, after each round that ended.
    ``automatic=False`` starts no round by itself; queued ones still run.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        *,
        on_new_version: Callable[[], None] | None = None,
        automatic: bool = True,
        build_command: BuildCommand = trainer_command,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._db = db
        self._on_new_version = on_new_version or (lambda: None)
        self._automatic = automatic and settings.round.automatic
        self._build_command = build_command
        self._pace = pace or Pace()
        self._clock = clock
        self._attempt: _Attempt | None = None
        self._pulse = _Pulse((0, 0, 0), 0.0)
        self._not_before = 0.0
        self._lock: FileLock | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    # --- for the server -------------------------------------------------------------------

    def start(self) -> None:
        """Take the trainer's lock, release a run that a dead process left, start the thread.

        Raises:
            DataFolderBusyError: another supervisor looks after this data folder.
        """
        folder = self._settings.data_dir
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "trainer.lock")
        if not lock.try_acquire():
            raise DataFolderBusyError(
                f"Process {lock.holder()} already trains for {folder}. Stop it, or start the "
                "server with --no-trainer."
            )
        self._lock = lock
        left = runs.current_run(self._db)
        if left is not None and left.state == "running":
            # Trainers end with their parent and we hold the lock: nobody works on it.
            self._crashed(left, "the program ended while the round ran")
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the trainer; its round goes on from the newest checkpoint at the next start."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._halt("the server stopped; the round goes on at the next start")
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def poke(self) -> None:
        """Look now rather than at the next poll; called after a ranking."""
        self._wake.set()

    def request_round(self, stages: Sequence[Stage] = trigger.ALL_STAGES, by: str = "") -> Run:
        """Queue a round that a person asks for.

        Raises:
            BadInputError: an unknown stage.
            ConflictError: a round is queued or running already.
        """
        run = trigger.enqueue_round(self._settings, self._db, stages, by or "a person")
        self.poke()
        return run

    def pause(self) -> None:
        """Start no rounds; a running one stops now and goes on after ``resume``."""
        set_paused(self._db, paused=True)
        self.poke()

    def resume(self) -> None:
        """Undo ``pause``."""
        set_paused(self._db, paused=False)
        self.poke()

    def status(self) -> dict[str, Any]:
        """What the trainer does now, as ``/api/health`` shows it."""
        return trainer_status(self._settings, self._db)

    # --- the thread -----------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except Exception:
                # The thread must outlive a full disk or a locked file: it looks again.
                log.exception("the supervisor could not look after the trainer")
            self._wake.wait(self._pace.poll)
            self._wake.clear()

    def look(self) -> None:
        """One look at the child and the queue; the thread does this at each poll."""
        paused = is_paused(self._db)
        if self._attempt is not None:
            if paused:
                self._halt("paused; the round goes on after resuming")
            else:
                self._look_at(self._attempt)
            return
        current = runs.current_run(self._db)
        if current is None and self._is_due(paused=paused):
            current = self._start_automatic_round()
        if current is None:
            return
        if current.state == "running":
            self._look_at_stranger(current)
        elif not paused and self._clock() >= self._not_before:
            self._launch(current)

    def _is_due(self, *, paused: bool) -> bool:
        if paused or not self._automatic:
            return False
        return trigger.rankings_until_round(self._settings, self._db) == 0

    def _start_automatic_round(self) -> Run | None:
        try:
            return trigger.enqueue_round(self._settings, self._db, trigger.ALL_STAGES, "automatic")
        except ConflictError:
            return None  # a person was faster

    def _launch(self, run: Run) -> None:
        process = TrainerProcess(
            self._build_command(self._settings, run.id),
            trainer_log(self._settings, run.id),
            settings_environment(self._settings),
        )
        self._attempt = _Attempt(run.id, process)
        self._pulse = _Pulse((run.id, run.fence, run.heartbeat), self._clock())
        log.info("round %s: trainer process %s started", run.id, process.pid)

    def _look_at(self, attempt: _Attempt) -> None:
        now = self._clock()
        code = attempt.process.poll()
        run = runs.get_run(self._db, attempt.run_id)
        if code is not None:
            self._attempt = None
            self._ended(run, attempt.process)
            return
        if run.state not in _UNDER_WAY:
            # Ended or cancelled; the process gets a moment to leave by itself.
            attempt.ended_at = attempt.ended_at or now
            if now - attempt.ended_at >= self._pace.grace:
                attempt.process.stop(self._pace.grace)
            return
        silent = self._pulse.silence(run, now, attempt.process.starved_seconds())
        if silent >= self._settings.round.heartbeat_timeout_seconds:
            attempt.process.stop(self._pace.grace)
            self._attempt = None
            self._crashed(run, f"the trainer gave no sign of life for {silent:.0f} seconds")

    def _look_at_stranger(self, run: Run) -> None:
        """A run that another process has: it is taken back when that one falls silent."""
        silent = self._pulse.silence(run, self._clock())
        if silent >= self._settings.round.heartbeat_timeout_seconds:
            self._crashed(run, f"its process gave no sign of life for {silent:.0f} seconds")

    def _ended(self, run: Run, process: TrainerProcess) -> None:
        if run.state in _UNDER_WAY:
            taken = run.state == "running" and process.poll() in _NOT_OURS
            if not taken:  # otherwise another process has the run, watched as a stranger
                self._crashed(run, process.reason())
            return
        log.info("round %s %s: %s", run.id, run.state, run.message)
        runs.set_state(self._db, CRASHES_KEY, {})
        self._on_new_version()

    def _crashed(self, run: Run, reason: str) -> None:
        """Release the run for another attempt, or fail it when it had its attempts."""
        latest = runs.get_run(self._db, run.id)
        if latest.state not in _UNDER_WAY:
            return  # it ended between two looks
        crashes = crashes_of(self._db, run.id) + 1
        allowed = self._settings.round.attempts
        message = f"Attempt {crashes} of {allowed}: {reason}."
        log.warning("round %s: %s", run.id, message)
        runs.add_event(self._db, run.id, "error", message)
        if crashes >= allowed:
            runs.fail_run(self._db, run.id, f"Failed after {crashes} attempts: {reason}.")
            runs.set_state(self._db, CRASHES_KEY, {})
            self._on_new_version()
            return
        runs.set_state(self._db, CRASHES_KEY, {"run_id": run.id, "crashes": crashes})
        self._not_before = self._clock() + self._pace.retry * crashes
        if latest.state == "running":
            runs.release_run(self._db, run.id, f"{message} It goes on from its checkpoint.")

    def _halt(self, message: str) -> None:
        """End the child in order: the run stays queued and the stop counts as no crash."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        attempt.process.stop(self._pace.grace)
        try:
            if runs.get_run(self._db, attempt.run_id).state == "running":
                runs.release_run(self._db, attempt.run_id, message)
        except (ConflictError, NotFoundError) as error:
            log.warning("round %s could not be released: %s", attempt.run_id, error)
