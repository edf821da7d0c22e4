"""From the engine's events to the rows and the readers of a turn."""

from __future__ import annotations

import logging
from collections.abc import Callable

from chatrlhf.engine.requests import Completed, Delta, EngineEvent, Failed, Finished, Started
from chatrlhf.errors import NotFoundError
from chatrlhf.loop.choosing import Choosing
from chatrlhf.loop.live_turn import LiveTurn, progress_of
from chatrlhf.loop.reply_saver import ReplyEnd, ReplySaver
from chatrlhf.loop.rewards import Rewards
from chatrlhf.loop.turn_events import ReplyDelta, ReplyDone, TurnAsked, TurnDone, TurnFailed
from storage import conversations
from storage.conversations import NewReply
from storage.database import Database
from storage.records import Chosen

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


class TurnPump:
    """Brings turns to their ends, each in the thread that calls ``run``.

    ``forget`` is called with the id of a turn that has ended.
    """

    def __init__(
        self,
        db: Database,
        saver: ReplySaver,
        rewards: Rewards | None,
        forget: Callable[[int], object],
    ) -> None:
        self._db = db
        self._saver = saver
        self._rewards = rewards
        self._forget = forget

    def run(self, live: LiveTurn) -> None:
        """Handle the events of a turn until it has ended."""
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
                versions = event.versions[: len(live.turn.replies)]
                conversations.set_reply_versions(self._db, live.turn.id, versions)
                if live.choosing is not None:
                    live.choosing.version = event.versions[0]
            case Delta():
                live.texts[event.row] = live.texts.get(event.row, "") + event.text
                if live.choosing is None:
                    reply = live.reply(event.row)
                    live.log.append(ReplyDelta(reply.id, reply.position, event.text))
            case Finished():
                if live.choosing is None:
                    self._finish(live, event.row, event)
                else:
                    live.choosing.finished[event.row] = event
                    live.log.append(progress_of(live, live.choosing))
            case Failed():
                self._fail(live, event)
            case Completed():
                if live.choosing is not None and not live.choosing.is_broken:
                    self._show_chosen(live, live.choosing)

    def _show_chosen(self, live: LiveTurn, choosing: Choosing) -> None:
        """Score the candidates, then give each reply of the turn one of them."""
        assert self._rewards is not None  # without them nothing is chosen
        if not choosing.is_cut:
            live.log.append(progress_of(live, choosing, is_scoring=True))
        made = choosing.chosen(self._rewards)
        if len(made.shown) > len(live.turn.replies):
            self._ask(live, len(made.shown))
        try:
            conversations.finish_choice(
                self._db,
                live.turn.id,
                version=made.choice.version,
                scores=made.choice.scores,
                note=made.choice.note,
            )
        except NotFoundError as error:
            logger.info("the choice of turn %d is not stored: %s", live.turn.id, error)
        except Exception:
            logger.exception("the choice of turn %d could not be saved", live.turn.id)
        for position, (candidate, chosen) in enumerate(made.shown):
            reply = live.reply(position)
            live.log.append(ReplyDelta(reply.id, position, candidate.text))
            self._finish(live, position, candidate, chosen)

    def _ask(self, live: LiveTurn, replies: int) -> None:
        """The turn is to be ranked after all: make the rows that it lacks."""
        first = live.turn.replies[0]
        have = len(live.turn.replies)
        rows = [
            NewReply(position, first.version, first.seed, first.sampling)
            for position in range(have, replies)
        ]
        live.turn = conversations.add_replies(self._db, live.turn.id, rows)
        live.open_rows |= set(range(have, replies))
        live.log.append(TurnAsked(live.turn))

    def _finish(
        self, live: LiveTurn, position: int, event: Finished, chosen: Chosen | None = None
    ) -> None:
        reply = live.reply(position)
        live.open_rows.discard(position)
        end = ReplyEnd(
            reply.id, event.text, event.finish_reason, event.token_ids, event.logprobs, chosen
        )
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
        self._forget(live.turn.id)
        if not live.refused:
            live.log.append(TurnDone(live.turn.id))
        live.log.close()
