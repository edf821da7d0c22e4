"""Makes the replies of the rating queue ahead, in the background.

While somebody has used the queue within the last day, ``ahead`` prompts that wait for a rating have
replies that nobody has seen. They are made one prompt at a time, and only while nothing else asks
the engine: a chat that comes in between ends it, and what was begun is thrown away. All is kept in
rows, so a server that starts again goes on where it was and makes nothing twice.
"""

from __future__ import annotations

import datetime
import time
from typing import Any, Protocol

from chatrlhf.loop.background import BackgroundLoop
from chatrlhf.loop.live_turn import LiveTurn
from chatrlhf.loop.rating_queue import RatingQueue
from chatrlhf.loop.turns import Turns
from storage import conversations, queue_items
from storage.database import Database
from storage.records import Prompt

IN_USE_HOURS = 24
_POLL_SECONDS = 1.0
_WATCH_SECONDS = 0.1
_ENDING_SECONDS = 30.0


class BusyEngine(Protocol):
    """What making ahead needs of the engine."""

    @property
    def live_version(self) -> str:
        """Name of the version that new requests get."""

    def statistics(self) -> dict[str, Any]:
        """``active`` requests and those ``queued``, among others."""


class RepliesAhead:
    """A thread that keeps replies ready for the rating queue."""

    def __init__(
        self,
        db: Database,
        queue: RatingQueue,
        turns: Turns,
        engine: BusyEngine,
        *,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        self._db = db
        self._queue = queue
        self._turns = turns
        self._engine = engine
        self._loop = BackgroundLoop("replies-ahead", self.step, poll_seconds)

    def start(self) -> None:
        """Work from now on."""
        self._queue.on_take = self._loop.poke
        self._loop.start()

    def stop(self) -> None:
        """Begin nothing more; what is being written ends with the turns."""
        self._loop.stop()

    def step(self) -> bool:
        """Clear away what is stale and make one item, if one is wanted; whether one was made."""
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=IN_USE_HOURS)
        people = queue_items.raters_since(self._db, since)
        if not people or self._others_wait():
            return False
        with self._queue.making:
            queue_items.drop_stale(self._db, self._engine.live_version)
            ready, missing = queue_items.ready_and_missing(self._db, people)
            prompt = next((one for one in missing if self._queue.can_answer(one)), None)
            if prompt is None or ready >= self._queue.choices.ahead:
                return False
            live = self._queue.make(prompt)
        return live is None or self._watch(live, prompt)

    def _others_wait(self, own: int = 0) -> bool:
        numbers = self._engine.statistics()
        return int(numbers.get("active", 0)) + int(numbers.get("queued", 0)) > own

    def _watch(self, live: LiveTurn, prompt: Prompt) -> bool:
        """Wait for the replies; whether they were finished."""
        while not live.log.wait_closed(_WATCH_SECONDS):
            if self._loop.is_stopping:
                return False
            # Once a person has been given it, it is a chat like any other.
            if self._others_wait(own=1) and queue_items.withdraw_unshown(self._db, live.turn.id):
                self._throw_away(live)
                return False
        if live.refused:
            self._queue.refused(prompt)
        return True

    def _throw_away(self, live: LiveTurn) -> None:
        self._turns.cancel(live.turn.id)
        deadline = time.monotonic() + _ENDING_SECONDS
        while not live.log.wait_closed(_WATCH_SECONDS) and time.monotonic() < deadline:
            if self._loop.is_stopping:
                return  # cleared away at the next start
        conversations.delete_conversation(self._db, live.turn.conversation_id)
