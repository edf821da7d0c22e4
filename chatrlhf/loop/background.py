"""A thread that does the same piece of work again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from chatrlhf.errors import ChatRLHFError

logger = logging.getLogger(__name__)

_LAST_STEP_SECONDS = 10.0


class BackgroundLoop:
    """Calls ``step`` in a thread of its own until it is stopped. Thread safe.

    After a step that returned true comes the next at once; else after ``poll_seconds``, or when
    ``poke`` is called. A step that fails counts as one that found nothing to do; it is logged,
    once where it goes on failing alike.
    """

    def __init__(self, name: str, step: Callable[[], bool], poll_seconds: float) -> None:
        self._name = name
        self._step = step
        self._poll_seconds = poll_seconds
        self._woken = threading.Event()
        self._stopping = False
        self._told = ""  # the message of the last step, if it failed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` was called; a long step looks at it."""
        return self._stopping

    def start(self) -> None:
        """Work from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further step, and wait a while for the one that runs."""
        self._stopping = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_STEP_SECONDS)

    def poke(self) -> None:
        """Take the next step now."""
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping:
            if not self._has_worked():
                self._woken.wait(self._poll_seconds)
                self._woken.clear()

    def _has_worked(self) -> bool:
        try:
            has_worked = self._step()
        except Exception as error:
            if str(error) != self._told:
                is_known = isinstance(error, ChatRLHFError)
                logger.warning("%s waits: %s", self._name, error, exc_info=not is_known)
            self._told = str(error)
            return False
        self._told = ""
        return has_worked
