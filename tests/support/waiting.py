"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

from chatrlhf.loop.live_turn import LiveTurn


def wait_for(condition: Callable[[], object], seconds: float, pause: float = 0.005) -> None:
    """Return once the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)


def ended(live: LiveTurn) -> list:
    """All events of a turn, once it has ended."""
    assert live.log.wait_closed(10.0)
    return live.log.since(0)[0]
