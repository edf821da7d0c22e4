"""Turns: where rows meet the engine.

A turn asks the engine for K replies, gets its rows once the engine took the request, and is then
pumped by a thread of its own: every event goes to the rows and to an event log that any number of
pages follow. A page that goes away changes nothing; the rows are finished either way.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from chatrlhf.engine.requests import (
    ChatMessage,
    Completed,
    Delta,
    EngineEvent,
    Failed,
    Finished,
    ReplyRequest,
    Sampling,
    Started,
)
from chatrlhf.errors import BadInputError, ConflictError, OverloadedError
from chatrlhf.loop.ports import ReplyEngine, ReplyStream
from chatrlhf.loop.relay import EventLog
from chatrlhf.loop.reply_saver import ReplyEnd, ReplySaver
from chatrlhf.loop.turn_events import (
    NewTurn,
    ReplyDelta,
    ReplyDone,
    TurnDone,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from storage import conversations
from storage.conversations import NewReply
from storage.database import Database
from storage.records import Reply, Turn

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


@dataclass
class LiveTurn:
    """A turn whose replies still stream."""

    turn: Turn
    stream: ReplyStream
    log: EventLog[TurnEvent] = field(default_factory=EventLog)
    texts: dict[int, str] = field(default_factory=dict)
    open_rows: set[int] = field(default_factory=set)
    admitted: bool = False
    refused: bool = False
    abandoned: bool = False

    def reply(self, row: int) -> Reply:
        """The reply of an engine row; rows and replies have the same order."""
        return self.turn.replies[row]


class Turns:
    """Starts, follows and ends turns. Thread safe."""

    def __init__(
        self,
        db: Database,
        engine: ReplyEngine,
        *,
        concurrent_turns: int,
        saver: ReplySaver | None = None,
    ) -> None:
        self._db = db
        self._engine = engine
        self._saver = saver or ReplySaver(db)
        self._pool = ThreadPoolExecutor(concurrent_turns, thread_name_prefix="turn")
        self._live: dict[int, LiveTurn] = {}
        self._starting = threading.Lock()
        self._stopping = False

    def start(self, conversation_id: int, wanted: NewTurn) -> LiveTurn:
        """Ask the engine and make the rows; the replies follow in the log.

        Raises:
            NotFoundError: no such conversation or parent reply.
            ConflictError: the newest turn of the conversation still streams.
            ContextOverflowError: the conversation has become too long.
            OverloadedError: the engine's queue is full, or the server stops.
        """
        # One at a time, so that two prompts at once cannot continue from the same point unseen.
        with self._starting:
            if self._stopping:
                raise OverloadedError("The server is stopping. Try again when it runs.")
            self._saver.save_kept()
            parent = wanted.parent_reply_id
            if parent is None and not wanted.from_root:
                parent = conversations.choose_parent(self._db, conversation_id)
            elif parent is not None:
                self._check_finished(parent)
            stream = self._engine.submit(self._request(conversation_id, parent, wanted))
            try:
                turn = self._make_rows(conversation_id, parent, wanted)
            except BaseException:
                stream.cancel()
                raise
            live = LiveTurn(turn, stream, open_rows=set(range(wanted.replies)))
            self._live[turn.id] = live
        live.log.append(TurnStarted(turn))
        self._pool.submit(self._pump, live)
        return live

    def live(self, turn_id: int) -> LiveTurn | None:
        """The turn, while its replies stream."""
        return self._live.get(turn_id)

    def cancel(self, turn_id: int, reply_id: int | None = None) -> bool:
        """Cut one reply of a turn, or all; False when they have ended already."""
        live = self._live.get(turn_id)
        if live is None:
            return False
        if reply_id is None:
            live.stream.cancel()
            return True
        rows = [row for row in live.open_rows if live.reply(row).id == reply_id]
        for row in rows:
            live.stream.cancel(row)
        return bool(rows)

    def cancel_conversation(self, conversation_id: int) -> None:
        """Cut all replies that still stream in a conversation."""
        for live in list(self._live.values()):
            if live.turn.conversation_id == conversation_id:
                live.stream.cancel()

    def stop(self, grace_seconds: float = 2.0) -> None:
        """Take no more turns, let the running ones end for a moment, interrupt the rest."""
        with self._starting:
            self._stopping = True
        deadline = time.monotonic() + grace_seconds
        for live in list(self._live.values()):
            live.log.wait_closed(max(0.0, deadline - time.monotonic()))
        for live in list(self._live.values()):
            live.abandoned = True
            live.stream.cancel()
        self._pool.shutdown(wait=True)
        self._saver.save_kept()

    def _check_finished(self, parent_reply_id: int) -> None:
        state = conversations.get_reply(self._db, parent_reply_id).state
        if state not in ("complete", "cancelled"):
            raise ConflictError(
                f"Reply {parent_reply_id} is {state}. Continue from one that is finished."
            )

    def _request(self, conversation_id: int, parent: int | None, wanted: NewTurn) -> ReplyRequest:
        before = conversations.messages_before(self._db, conversation_id, parent)
        messages = [ChatMessage(message.role, message.content) for message in before]
        return ReplyRequest(
            messages=(*messages, ChatMessage("user", wanted.text)),
            replies=wanted.replies,
            seed=wanted.seed,
            sampling=wanted.sampling,
            versions=wanted.versions,
        )

    def _make_rows(self, conversation_id: int, parent: int | None, wanted: NewTurn) -> Turn:
        versions = wanted.versions or (self._engine.live_version,) * wanted.replies
        if len(versions) != wanted.replies:
            raise BadInputError(
                f"{len(versions)} versions are named for {wanted.replies} replies; name one each."
            )
        rows = [
            NewReply(
                position=position,
                version=version,
                seed=wanted.seed,
                sampling=sampling_record(wanted.sampling),
            )
            for position, version in enumerate(versions)
        ]
        return conversations.create_turn(self._db, conversation_id, wanted.text, parent, rows)

    def _pump(self, live: LiveTurn) -> None:
        try:
            while not live.abandoned:
                event = live.stream.next_event(_POLL_SECONDS)
                if event is not None:
                    self._handle(live, event)
                if isinstance(event, Completed | Failed):
                    return
        except Exception:
            logger.exception("turn %d failed", live.turn.id)
            live.stream.cancel()
            message = "The replies could not be finished. What had come is kept; ask again."
            live.log.append(TurnFailed("internal", message, 500))
        finally:
            self._close(live)

    def _handle(self, live: LiveTurn, event: EngineEvent) -> None:
        match event:
            case Started():
                live.admitted = True
                conversations.set_reply_versions(self._db, live.turn.id, event.versions)
            case Delta():
                live.texts[event.row] = live.texts.get(event.row, "") + event.text
                reply = live.reply(event.row)
                live.log.append(ReplyDelta(reply.id, reply.position, event.text))
            case Finished():
                self._finish(live, event)
            case Failed():
                self._fail(live, event)
            case Completed():
                pass

    def _finish(self, live: LiveTurn, event: Finished) -> None:
        reply = live.reply(event.row)
        live.open_rows.discard(event.row)
        end = ReplyEnd(reply.id, event.text, event.finish_reason, event.token_ids, event.logprobs)
        if self._saver.save(end):
            done = ReplyDone(reply.id, reply.position, event.text, event.finish_reason)
            live.log.append(done)
        else:
            message = (
                f"Reply {reply.position + 1} could not be saved. Look at the disk's free space."
            )
            live.log.append(TurnFailed("not_saved", message, 500))

    def _fail(self, live: LiveTurn, event: Failed) -> None:
        if not live.admitted:
            # Refused after all: a refused request leaves no row.
            live.open_rows.clear()
            live.refused = True
            conversations.delete_turn(self._db, live.turn.id)
        live.log.append(TurnFailed(event.code, event.message, event.http_status))

    def _close(self, live: LiveTurn) -> None:
        """Interrupt what is still open, tell the readers, forget the turn."""
        for row in sorted(live.open_rows):
            reply = live.reply(row)
            text = live.texts.get(row, "")
            self._saver.save(ReplyEnd(reply.id, text, "interrupted"))
            live.log.append(ReplyDone(reply.id, reply.position, text, "interrupted"))
        self._live.pop(live.turn.id, None)
        if not live.refused:
            live.log.append(TurnDone(live.turn.id))
        live.log.close()


def sampling_record(sampling: Sampling) -> dict[str, Any]:
    """The sampling settings as they are stored with each reply."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_new_tokens": sampling.max_new_tokens,
        "stop": list(sampling.stop),
    }
