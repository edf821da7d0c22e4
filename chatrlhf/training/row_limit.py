"""How many rows go through the model at once, and what happens when memory runs out.

A pass over B rows can be cut into smaller passes with the same result up to rounding, so running
out of memory halves the number of rows and tries again, down to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from chatrlhf.errors import RoundError

Result = TypeVar("Result")
UNLIMITED = 1 << 30
# What torch, CUDA's libraries and the system say when an allocation fails.
_SIGNS = ("out of memory", "can't allocate memory", "alloc_failed")

Item = TypeVar("Item")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def memory_in_words() -> Iterator[None]:
    """Say to people that memory ran out.

    Raises:
        RoundError: instead of what torch raises.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RoundError(
            "Memory ran out, with a single reply at a time too. Lower ppo.max_new_tokens or "
            "reward.max_tokens, set ppo.gradient_checkpointing, or choose a smaller model; "
            "nothing was published."
        ) from error


def parts_of(rows: Sequence[Item], size: int) -> list[list[Item]]:
    """Rows in parts of ``size``, in order; the last may be smaller."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


class RowLimit:
    """The number of rows that memory allows at once; it only falls."""

    def __init__(self, rows: int = UNLIMITED) -> None:
        self.rows = rows

    def lower(self, rows: int) -> None:
        """Allow at most ``rows`` rows."""
        self.rows = min(self.rows, rows)

    def halving(self, total: int, work: Callable[[int], Result]) -> Result:
        """``work(rows)`` over ``total`` rows, again with half as many at once if memory runs out.

        ``work`` must leave nothing behind when it fails.

        Raises:
            RoundError: memory runs out with a single row too.
        """
        while True:
            size = max(min(self.rows, total), 1)
            with memory_in_words():
                if size == 1:
                    return work(1)
                try:
                    return work(size)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
            # Only now has the exception let go of the tensors in its frames.
            self.rows = size // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
