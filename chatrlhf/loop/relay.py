"""One writer, many readers: the events of one turn, kept until it ends.

A reader that comes late reads from the first event, so a page that reloads misses nothing; a slow
reader only falls behind in the log and holds nobody up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


class EventLog(Generic[Item]):
    """An append-only list that threads write and any number of readers follow."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._closed = False
        self._changed = threading.Condition()
        self._wakers: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """No item will follow."""
        return self._closed

    def append(self, item: Item) -> None:
        """Add an item and wake the readers."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def close(self) -> None:
        """Say that no item will follow."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def since(self, index: int) -> tuple[list[Item], bool]:
        """The items from ``index`` on, and whether the log has ended with them."""
        with self._changed:
            return self._items[index:], self._closed

    def wait_closed(self, timeout: float) -> bool:
        """Block until the log is closed, ``timeout`` seconds at most; whether it is."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    @contextmanager
    def listening(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake``, which must not block, from the writer's thread at every change."""
        with self._changed:
            self._wakers.append(wake)
        try:
            yield
        finally:
            with self._changed:
                self._wakers.remove(wake)
