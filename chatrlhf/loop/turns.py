"""Turns: where rows meet the engine.

A turn asks the engine for K replies, gets its rows once the engine took the request, and is then
pumped by a thread of its own: every event goes to the rows and to an event log that any number of
pages follow. A page that goes away changes nothing; the rows are finished either way. Where more
candidates are written than shown (`choosing.py`), the rows get theirs when all are written.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from chatrlhf.engine.requests import ChatMessage, ReplyRequest
from chatrlhf.errors import BadInputError, ConflictError, OverloadedError
from chatrlhf.loop.asking import ask_or_not
from chatrlhf.loop.choosing import Choosing, Plan, plan_of
from chatrlhf.loop.live_turn import LiveTurn, progress_of, reply_rows
from chatrlhf.loop.ports import ReplyEngine
from chatrlhf.loop.reply_saver import ReplySaver
from chatrlhf.loop.rewards import Rewards
from chatrlhf.loop.turn_events import NewTurn, TurnStarted
from chatrlhf.loop.turn_pump import TurnPump
from storage import continuation, conversations
from storage.database import Database
from storage.records import Choice, Turn


class Turns:
    """Starts, follows and ends turns. Thread safe.

    Without ``rewards`` replies are never chosen among candidates.
    """

    def __init__(
        self,
        db: Database,
        engine: ReplyEngine,
        *,
        concurrent_turns: int,
        rewards: Rewards | None = None,
        saver: ReplySaver | None = None,
    ) -> None:
        self._db = db
        self._engine = engine
        self._rewards = rewards
        self._saver = saver or ReplySaver(db)
        self._pool = ThreadPoolExecutor(concurrent_turns, thread_name_prefix="turn")
        self._live: dict[int, LiveTurn] = {}
        self._pump = TurnPump(db, self._saver, rewards, lambda turn: self._live.pop(turn, None))
        self._starting = threading.Lock()
        self._stopping = False

    def start(self, conversation_id: int, wanted: NewTurn) -> LiveTurn:
        """Ask the engine and make the rows; the replies follow in the log.

        Raises:
            BadInputError: the candidates or versions do not go with the replies.
            NotFoundError: no such conversation or parent reply.
            ConflictError: the newest turn of the conversation still streams.
            ContextOverflowError: the conversation has become too long.
            OverloadedError: the engine's queue is full, or the server stops.
        """
        version = self._engine.live_version
        wanted, note = ask_or_not(self._db, conversation_id, wanted, self._rewards, version)
        plan = plan_of(wanted, self._rewards, version, note)
        # One at a time, so that two prompts at once cannot continue from the same point unseen.
        with self._starting:
            if self._stopping:
                raise OverloadedError("The server is stopping. Try again when it runs.")
            self._saver.save_kept()
            parent = wanted.parent_reply_id
            if parent is None and not wanted.from_root:
                parent = continuation.choose_parent(self._db, conversation_id)
            elif parent is not None:
                self._check_finished(parent)
            request = self._request(conversation_id, parent, wanted, plan)
            stream = self._engine.submit(request)
            try:
                turn = self._make_rows(conversation_id, parent, wanted, plan.choice)
            except BaseException:
                stream.cancel()
                raise
            live = LiveTurn(turn, stream, open_rows=set(range(len(turn.replies))))
            if plan.chooses(wanted):
                live.choosing = Choosing(
                    policy=wanted.choose,
                    candidates=plan.candidates,
                    shown=wanted.replies,
                    seed=wanted.seed,
                    messages=request.messages,
                    doubt=wanted.doubt,
                )
            self._live[turn.id] = live
        live.log.append(TurnStarted(turn))
        if live.choosing is not None:
            live.log.append(progress_of(live, live.choosing))
        self._pool.submit(self._pump.run, live)
        return live

    def live(self, turn_id: int) -> LiveTurn | None:
        """The turn, while its replies stream."""
        return self._live.get(turn_id)

    def cancel(self, turn_id: int, reply_id: int | None = None) -> bool:
        """Cut one reply of a turn, or all; False when they have ended already.

        Of candidates none is shown yet, so that only all can be cut.
        """
        with self._starting:  # the rows of a turn can be read before it is known to stream
            live = self._live.get(turn_id)
        if live is None:
            return False
        if reply_id is None:
            live.stream.cancel()
            return True
        if live.choosing is not None:
            return False
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

    def _request(
        self, conversation_id: int, parent: int | None, wanted: NewTurn, plan: Plan
    ) -> ReplyRequest:
        before = conversations.messages_before(self._db, conversation_id, parent)
        messages = [ChatMessage(message.role, message.content) for message in before]
        return ReplyRequest(
            messages=(*messages, ChatMessage("user", wanted.text)),
            replies=plan.candidates,
            seed=wanted.seed,
            sampling=wanted.sampling,
            versions=wanted.versions,
        )

    def _make_rows(
        self, conversation_id: int, parent: int | None, wanted: NewTurn, choice: Choice | None
    ) -> Turn:
        shown = 1 if wanted.doubt else wanted.replies
        versions = wanted.versions or (self._engine.live_version,) * shown
        if len(versions) != shown:
            raise BadInputError(
                f"{len(versions)} versions are named for {shown} replies; name one each."
            )
        rows = reply_rows(versions, wanted.seed, wanted.sampling, wanted.slot_type)
        return conversations.create_turn(
            self._db, conversation_id, wanted.text, parent, rows, choice
        )
