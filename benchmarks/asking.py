"""Ask the engine, and take the time of its answer."""

from __future__ import annotations

import time

from generation_workload import Timing

from chatrlhf.engine.engine import Engine
from chatrlhf.engine.requests import Completed, Delta, Failed, Finished, ReplyRequest

_PATIENCE_SECONDS = 600.0


def ask(engine: Engine, request: ReplyRequest) -> Timing:
    """Time to the first text of K replies, to the end of all, and their tokens.

    Raises:
        SystemExit: the engine failed.
    """
    started = time.perf_counter()
    stream = engine.submit(request)
    first, tokens = 0.0, 0
    while True:
        event = stream.next_event(_PATIENCE_SECONDS)
        if event is None or isinstance(event, Failed):
            raise SystemExit(f"the engine failed: {event}")
        if not first and isinstance(event, Delta | Finished):
            first = time.perf_counter() - started
        if isinstance(event, Finished):
            tokens += len(event.token_ids)
        if isinstance(event, Completed):
            return Timing(first, time.perf_counter() - started, tokens)
