"""The loop of the engine's thread: admission, prompts in chunks, one step of all rows in turn.

A round is one token for every running reply. Between rounds one chunk of one prompt is run, or what
can be of it in the time that a round took. Commands, such as scoring, run between the steps.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from chatrlhf.engine.batch import Advance, JointSteps
from chatrlhf.engine.cache_budget import CacheBudget
from chatrlhf.engine.drawing import Drawer, Drawn
from chatrlhf.engine.failures import failure_of
from chatrlhf.engine.requests import Completed, Failed
from chatrlhf.engine.streams import Meter
from chatrlhf.engine.turn import Turn
from chatrlhf.engine.waiting import Waiting
from chatrlhf.engine.work import Work
from chatrlhf.errors import LoadingError, ModelError, OverloadedError
from chatrlhf.settings import EngineSettings

logger = logging.getLogger(__name__)

_COMMAND_SECONDS = 300.0
_STOP_SECONDS = 30.0
_MOST_PASSED = 8  # how often prompts with less left to run may go before one


@dataclass
class _Active:
    """A turn in work."""

    turn: Turn
    passed: int = 0  # how often its prompt waited for another's


class Scheduler:
    """Requests from the queue to their last token. Thread safe.

    ``begin`` makes a turn of an admitted request; ``end`` is called when its versions are let go.
    """

    def __init__(
        self,
        settings: EngineSettings,
        budget: CacheBudget,
        steps: JointSteps,
        drawer: Drawer,
        begin: Callable[[Work], Turn],
        end: Callable[[Work], None],
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._steps = steps
        self._drawer = drawer
        self._begin = begin
        self._end = end
        self._changed = threading.Condition()
        self._waiting = Waiting()
        self._commands: deque[Callable[[], None]] = deque()
        self._active: list[_Active] = []
        self._running = False
        self._round_seconds = math.inf  # of the last round, if any reply runs
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.meter = Meter()

    def start(self) -> None:
        """Start the thread."""
        self._running = True
        self._thread.start()

    def stop(self) -> None:
        """End the thread; running replies are interrupted, waiting requests fail."""
        with self._changed:
            self._running = False
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    @property
    def turns(self) -> list[Turn]:
        """The requests in work now."""
        return [one.turn for one in list(self._active)]

    @property
    def queued(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)

    def submit(self, make: Callable[[], Work]) -> Work:
        """Queue what ``make`` returns, called if there is room in the queue.

        Raises:
            OverloadedError: too many requests wait, or the thread does not run.
        """
        with self._changed:
            self._check_queue()
            work = make()
            self._waiting.add(work)
            self._changed.notify()
        return work

    def wake(self) -> None:
        """Look again at what was cancelled."""
        with self._changed:
            self._changed.notify()

    def check_running(self) -> None:
        """Check that the thread runs.

        Raises:
            LoadingError: it does not.
        """
        if not self._running:
            raise LoadingError("The engine is not running. Start it first.")

    def command(self, action: Callable[[], None]) -> None:
        """Have the thread do something between two steps, and wait for it.

        Raises:
            LoadingError: the thread does not run.
        """
        done: Future[None] = Future()

        def run() -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001  it is raised on the calling thread
                done.set_exception(error)
            else:
                done.set_result(None)

        with self._changed:
            self.check_running()
            self._commands.append(run)
            self._changed.notify()
        done.result(_COMMAND_SECONDS)

    def _check_queue(self) -> None:
        if not self._running:
            raise OverloadedError("The engine is not running. Try again when the server is up.")
        free = self._settings.active_turns - len(self._active)
        if len(self._waiting) - max(free, 0) >= self._settings.queued_turns:
            raise OverloadedError(
                f"{len(self._waiting)} requests are waiting already. Try again in a moment."
            )

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while self._wait():
                self._run_commands()
                self._end_cancelled()
                self._admit()
                self._prefill()
                self._run_commands()
                self._round()
        except BaseException:
            logger.exception("the engine's thread ended")
            raise
        finally:
            self._close()

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when the engine is to stop."""
        with self._changed:
            while self._running and not (self._waiting or self._commands or self._active):
                self._changed.wait()
            return self._running

    def _run_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _end_cancelled(self) -> None:
        for one in list(self._active):
            with self._guarded(one):
                one.turn.end_cancelled()

    def _admit(self) -> None:
        """Move requests from the queue into work; those cancelled before leave at once."""
        with self._changed:
            cancelled = self._waiting.take_cancelled()
        for work in cancelled:
            turn = self._begin(work)
            turn.start()
            turn.end_cancelled()
            self._let_go(work, Completed())
        while True:
            with self._changed:
                admitted = self._waiting.take_next(self._fits)
                if admitted is None:
                    return
                active = _Active(self._begin(admitted))
                self._active.append(active)
            active.turn.start()

    def _fits(self, work: Work) -> bool:
        if len(self._active) >= self._settings.active_turns:
            return False
        reserved = sum(one.turn.most_cache_bytes(self._budget) for one in self._active)
        return reserved + work.cache_bytes <= self._budget.total

    def _prefill(self) -> None:
        """Run one chunk of a prompt: of the one with the least left, unless another waited long."""
        prompting = [one for one in self._active if one.turn.state is None]
        if not prompting:
            return
        chosen = min(
            prompting, key=lambda one: 0 if one.passed >= _MOST_PASSED else one.turn.chunks_left
        )
        for one in prompting:
            one.passed += one is not chosen
        chosen.passed = 0
        with self._guarded(chosen):
            chosen.turn.prefill(self._round_seconds)

    def _round(self) -> None:
        """One token for every running reply."""
        started = time.monotonic()
        running = [one for one in self._active if one.turn.state is not None]
        rows = sum(one.turn.rows for one in running)
        advances = self._draw(running)
        by_state = {id(advance.state): one for one, advance in advances}
        groups = self._steps.groups([advance for _, advance in advances])
        for number, group in enumerate(list(groups)):
            for advance, error in zip(group, self._steps.step(group, number), strict=True):
                if error is not None:
                    self._fail(by_state[id(advance.state)], error)
            self._run_commands()
        if running:
            self.meter.add(started, rows)
        self._round_seconds = time.monotonic() - started if running else math.inf

    def _draw(self, running: list[_Active]) -> list[tuple[_Active, Advance]]:
        """Draw a token a row, and hand it out; what is to be appended to the rows that go on."""
        found = self._drawer.draw([one.turn.wanted() for one in running])
        advances = []
        for one, drawn in zip(running, found, strict=True):
            state = one.turn.state
            assert state is not None
            with self._guarded(one):
                token_ids = one.turn.accept(_tokens(drawn))
                if token_ids is not None:
                    advances.append((one, Advance(state, token_ids)))
        return advances

    @contextmanager
    def _guarded(self, one: _Active) -> Iterator[None]:
        """Work on one request: an exception ends it alone, and so does its last reply."""
        try:
            yield
        except Exception as error:
            logger.exception("a request failed")
            self._fail(one, error)
        else:
            if one.turn.finished:
                self._retire(one, Completed())

    def _fail(self, one: _Active, error: Exception) -> None:
        one.turn.abandon()
        self._retire(one, failure_of(error))

    def _retire(self, one: _Active, last: Completed | Failed) -> None:
        with self._changed:
            self._active.remove(one)
        self._let_go(one.turn.work, last)

    def _let_go(self, work: Work, last: Completed | Failed) -> None:
        self._end(work)
        work.stream.put(last)

    def _close(self) -> None:
        """End what is left, so that nobody waits for an engine that is gone."""
        with self._changed:
            self._running = False
            waiting = self._waiting.take_all()
        for one in list(self._active):
            one.turn.end("interrupted")
            self._retire(one, Completed())
        for work in waiting:
            self._let_go(work, Failed("overloaded", "The server stopped. Ask again.", 503))
        self._run_commands()


def _tokens(drawn: Drawn | ModelError) -> Drawn:
    if isinstance(drawn, ModelError):
        raise drawn
    return drawn
