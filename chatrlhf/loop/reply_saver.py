"""Stores how replies ended, and does not lose one to a disk that is full for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from chatrlhf.errors import ConflictError, NotFoundError
from storage import conversations
from storage.database import Database
from storage.records import Chosen, FinishReason, ReplyState

logger = logging.getLogger(__name__)

_PAUSES_SECONDS = (0.0, 0.5, 2.0)
_STATE_OF: dict[FinishReason, ReplyState] = {
    "stop": "complete",
    "length": "complete",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
}


@dataclass(frozen=True)
class ReplyEnd:
    """How a reply ended, and why it is shown where it was chosen among several."""

    reply_id: int
    text: str
    finish_reason: FinishReason
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    chosen: Chosen | None = None


class ReplySaver:
    """Writes the ends of replies; keeps what it could not write, to try again. Thread safe."""

    def __init__(self, db: Database, pauses_seconds: Sequence[float] = _PAUSES_SECONDS) -> None:
        self._db = db
        self._pauses_seconds = pauses_seconds
        self._unsaved: list[ReplyEnd] = []
        self._lock = threading.Lock()

    def save(self, end: ReplyEnd) -> bool:
        """Store an end, trying for a few seconds; False when it is kept for later."""
        for pause in self._pauses_seconds:
            time.sleep(pause)
            if self._write(end):
                return True
        with self._lock:
            self._unsaved.append(end)
        return False

    def save_kept(self) -> None:
        """Try again what could not be stored before."""
        with self._lock:
            self._unsaved = [end for end in self._unsaved if not self._write(end)]

    def _write(self, end: ReplyEnd) -> bool:
        try:
            conversations.finish_reply(
                self._db,
                end.reply_id,
                text=end.text,
                token_ids=end.token_ids,
                logprobs=end.logprobs,
                finish_reason=end.finish_reason,
                state=_STATE_OF[end.finish_reason],
                chosen=end.chosen,
            )
        except (NotFoundError, ConflictError) as error:
            # Its conversation was erased meanwhile, or it has been ended: nothing to store.
            logger.info("reply %d is not stored: %s", end.reply_id, error)
        except Exception:
            logger.exception("reply %d could not be saved", end.reply_id)
            return False
        return True
