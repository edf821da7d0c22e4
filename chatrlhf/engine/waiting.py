"""Requests that wait for room: first come first served, within bounds."""

from __future__ import annotations

from collections.abc import Callable

from chatrlhf.engine.work import Work

# How many smaller requests may pass one that does not fit yet.
MOST_OVERTAKEN = 8


class Waiting:
    """A queue that lets smaller requests pass one for which memory is short, but not for ever.

    So a small request does not wait for a large one, nor does a large one starve. Whoever uses it
    holds the lock of the engine.
    """

    def __init__(self) -> None:
        self._works: list[Work] = []
        self._overtaken: dict[int, int] = {}  # by id of the work

    def __len__(self) -> int:
        return len(self._works)

    def add(self, work: Work) -> None:
        """Wait at the end."""
        self._works.append(work)

    def take_cancelled(self) -> list[Work]:
        """Remove the requests that nobody wants any more."""
        gone = [work for work in self._works if work.stream.all_cancelled]
        if gone:
            self._works = [work for work in self._works if not work.stream.all_cancelled]
            for work in gone:
                self._overtaken.pop(id(work), None)
        return gone

    def take_next(self, fits: Callable[[Work], bool]) -> Work | None:
        """Remove the next request that fits; None where none does, or one must not wait more."""
        for place, work in enumerate(self._works):
            if fits(work):
                for passed in self._works[:place]:
                    self._overtaken[id(passed)] = self._overtaken.get(id(passed), 0) + 1
                self._overtaken.pop(id(work), None)
                return self._works.pop(place)
            if self._overtaken.get(id(work), 0) >= MOST_OVERTAKEN:
                return None
        return None

    def take_all(self) -> list[Work]:
        """Remove all."""
        works, self._works = self._works, []
        self._overtaken.clear()
        return works
