"""Completions that nobody stores: an engine stream pumped into an event log."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from chatrlhf.engine.requests import Completed, EngineEvent, Failed, ReplyRequest
from chatrlhf.loop.ports import ReplyEngine, ReplyStream
from chatrlhf.loop.relay import EventLog

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


class Completion:
    """One request that the engine took, and its events so far."""

    def __init__(self, stream: ReplyStream) -> None:
        self.log: EventLog[EngineEvent] = EventLog()
        self._stream = stream
        self._abandoned = False

    def cancel(self) -> None:
        """Cut what is not finished; harmless afterwards."""
        if not self.log.closed:
            self._abandoned = True
            self._stream.cancel()

    def pump(self) -> None:
        """Move events from the engine to the log until the last one."""
        try:
            while not self._abandoned:
                event = self._stream.next_event(_POLL_SECONDS)
                if event is not None:
                    self.log.append(event)
                if isinstance(event, Completed | Failed):
                    return
        except Exception:
            logger.exception("a completion failed")
            self.log.append(Failed("internal", "The reply could not be finished. Ask again."))
        finally:
            self.log.close()


class Completions:
    """Starts completions. Thread safe."""

    def __init__(self, engine: ReplyEngine, *, concurrent_requests: int) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(concurrent_requests, thread_name_prefix="completion")
        self._open: set[Completion] = set()

    def start(self, request: ReplyRequest) -> Completion:
        """Ask the engine; its errors pass through."""
        completion = Completion(self._engine.submit(request))
        self._open.add(completion)
        self._pool.submit(self._pump, completion)
        return completion

    def stop(self) -> None:
        """Cut all that still runs."""
        for completion in list(self._open):
            completion.cancel()
        self._pool.shutdown(wait=True)

    def _pump(self, completion: Completion) -> None:
        try:
            completion.pump()
        finally:
            self._open.discard(completion)
