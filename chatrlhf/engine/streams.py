"""The answer to one request, seen from the thread that asked."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator

from chatrlhf.engine.requests import Completed, EngineEvent, Failed

_FOREVER = 3600.0


class ReplyStream:
    """Events of one request, in order, ending in ``Completed`` or ``Failed``.

    The engine's thread puts, one other thread takes; any thread may cancel.
    """

    def __init__(self, replies: int, on_cancel: Callable[[], None]) -> None:
        self._events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self._replies = replies
        self._on_cancel = on_cancel
        self._cancelled: set[int] = set()
        self._ended = False

    def __iter__(self) -> Iterator[EngineEvent]:
        """Wait for each event in turn, until the last."""
        while not self._ended:
            event = self.next_event(_FOREVER)
            if event is not None:
                yield event

    def next_event(self, timeout: float) -> EngineEvent | None:
        """The next event; None when none came within ``timeout`` seconds, or none will come."""
        if self._ended:
            return None
        try:
            event = self._events.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        self._ended = isinstance(event, Completed | Failed)
        return event

    def cancel(self, row: int | None = None) -> None:
        """Cut one reply, or all, before the next step; what has come stays."""
        self._cancelled.update(i for i in range(self._replies) if row is None or i == row)
        self._on_cancel()

    def put(self, event: EngineEvent) -> None:
        """Append an event; for the engine's thread."""
        self._events.put(event)

    def is_cancelled(self, row: int) -> bool:
        """Whether a reply is to be cut."""
        return row in self._cancelled

    @property
    def all_cancelled(self) -> bool:
        """Whether all replies are to be cut."""
        return len(self._cancelled) >= self._replies


class Meter:
    """Tokens per second over the last steps, counting only the time spent in steps."""

    def __init__(self, steps: int = 64) -> None:
        self._steps: list[tuple[float, int]] = []
        self._limit = steps
        self.tokens = 0

    def add(self, started: float, tokens: int) -> None:
        """Count a step that began at ``started`` (``time.monotonic``) and ends now."""
        self.tokens += tokens
        self._steps = [*self._steps[1 - self._limit :], (time.monotonic() - started, tokens)]

    @property
    def tokens_per_second(self) -> float:
        """0 before the first step."""
        steps = self._steps
        seconds = sum(duration for duration, _ in steps)
        return sum(tokens for _, tokens in steps) / seconds if seconds else 0.0
