"""Composition root: the only place that builds long-lived objects.

``start`` returns as soon as the database is open; the base model is fetched, loaded and set to
work by a thread, so that the page can show how far it is.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from importlib import resources
from typing import Any, Literal, TypeVar

from chatrlhf.engine.requests import ChatMessage, ScoredReplies, TokenValues
from chatrlhf.errors import ChatRLHFError, ConflictError, LoadingError
from chatrlhf.loop import trigger
from chatrlhf.loop.completions import Completions
from chatrlhf.loop.duels import Duels
from chatrlhf.loop.live_version import LiveVersion
from chatrlhf.loop.open_engine import OpenEngine, open_real_engine
from chatrlhf.loop.ports import Engine
from chatrlhf.loop.rating_queue import RatingQueue
from chatrlhf.loop.replies_ahead import RepliesAhead
from chatrlhf.loop.resident_engine import ResidentEngine
from chatrlhf.loop.rewards import Rewards
from chatrlhf.loop.supervisor import Supervisor, trainer_status
from chatrlhf.loop.turns import Turns
from chatrlhf.settings import Settings
from storage import conversations, people, prompts, sessions, versions
from storage.database import Database, lock_data_folder, open_database
from storage.locks import FileLock
from storage.records import Person

logger = logging.getLogger(__name__)

Status = Literal["loading", "ok", "failed"]
Part = TypeVar("Part")


class App:
    """All that the server's routes work with. Thread safe between ``start`` and ``stop``."""

    def __init__(self, settings: Settings, *, with_trainer: bool, open_engine: OpenEngine) -> None:
        self.settings = settings
        self.status: Status = "loading"
        self.message = ""
        self._with_trainer = with_trainer
        self._open_engine = open_engine
        self._stage: tuple[str, float] = ("Starting", 0.0)
        self._stopping = threading.Event()
        self._db: Database | None = None
        self._lock: FileLock | None = None
        self._engine: Engine | None = None
        self._rewards: Rewards | None = None
        self._turns: Turns | None = None
        self._completions: Completions | None = None
        self._queue: RatingQueue | None = None
        self._ahead: RepliesAhead | None = None
        self._live: LiveVersion | None = None
        self._duels: Duels | None = None
        self._supervisor: Supervisor | None = None
        self._loader = threading.Thread(target=self._load, name="loader", daemon=True)

    def start(self) -> None:
        """Lock the data folder, open the database, and load the model in the background.

        Raises:
            DataFolderBusyError: another server uses the data folder.
            StorageError: the database cannot be opened.
        """
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = lock_data_folder(self.settings.data_dir)
        try:
            self._db = open_database(self.settings.database_path)
            if not people.has_accounts(self._db):
                people.ensure_local_person(self._db)
            sessions.forget_old_sessions(self._db)
            interrupted = conversations.interrupt_streaming(self._db)
            if interrupted:
                logger.warning("%d replies were cut off when the server last ended", interrupted)
            prompts.erase_deleted(self._db)
            _fill_pool(self._db)
            self._queue = RatingQueue(self._db, self.settings, lambda: self.turns)
        except BaseException:
            self._release()
            raise
        self._loader.start()

    def stop(self) -> None:
        """End in order: turns, trainer, engine, database, lock."""
        self._stopping.set()
        if self._loader.is_alive():
            self._loader.join(10.0)
        self.end_streams()
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._live is not None:
            self._live.stop()
        if self._engine is not None:
            self._engine.stop()
        if self._db is not None:
            conversations.interrupt_streaming(self._db)
        self._release()

    def end_streams(self) -> None:
        """Take no more turns; interrupt, after a moment, those that stream."""
        if self._ahead is not None:
            self._ahead.stop()
        if self._turns is not None:
            self._turns.stop()
        if self._completions is not None:
            self._completions.stop()

    @property
    def db(self) -> Database:
        """The database; open from ``start`` to ``stop``."""
        if self._db is None:
            raise LoadingError("The server is not started.")
        return self._db

    @property
    def person(self) -> Person:
        """The one person of local use; ConflictError once there are accounts."""
        return people.ensure_local_person(self.db)

    @property
    def loading(self) -> dict[str, Any] | None:
        """How far the model is loaded: stage, and the fraction of it that is done."""
        if self.status != "loading":
            return None
        stage, fraction = self._stage
        return {"stage": stage, "fraction": round(fraction, 4)}

    @property
    def engine(self) -> Engine:
        """The engine; LoadingError until it runs."""
        return self._ready(self._engine)

    @property
    def turns(self) -> Turns:
        """Starts and follows turns; LoadingError until the engine runs."""
        return self._ready(self._turns)

    @property
    def queue(self) -> RatingQueue:
        """Gives people items to rate."""
        if self._queue is None:
            raise LoadingError("The server is not started.")
        return self._queue

    @property
    def completions(self) -> Completions:
        """Starts completions that are not stored; LoadingError until the engine runs."""
        return self._ready(self._completions)

    @property
    def live(self) -> LiveVersion:
        """Moves the live version; LoadingError until the engine runs."""
        return self._ready(self._live)

    @property
    def duels(self) -> Duels:
        """Says which versions answer a turn; LoadingError until the engine runs."""
        return self._ready(self._duels)

    @property
    def supervisor(self) -> Supervisor:
        """The trainer's keeper.

        Raises:
            ConflictError: the server was started without a trainer.
        """
        if not self._with_trainer:
            raise ConflictError(
                "This server was started without a trainer. Start it without --no-trainer, or run "
                "`chatrlhf train`."
            )
        return self._ready(self._supervisor)

    def health(self) -> dict[str, Any]:
        """What ``/api/health`` shows."""
        return {
            "status": self.status,
            "model": self.settings.model.name,
            "live_version": self._engine.live_version if self._engine is not None else None,
            "loading": self.loading,
            "message": self.message,
            "engine": self._engine.statistics() if self._engine is not None else None,
            "trainer": trainer_status(self.settings, self.db),
        }

    def score_replies(
        self, messages: Sequence[ChatMessage], replies: Sequence[str]
    ) -> tuple[str, ScoredReplies]:
        """Score replies by the live version's reward model; its name and the scores.

        Raises:
            LoadingError: the engine does not run yet.
            ConflictError: the live version has no reward model.
        """
        name = self.engine.live_version
        return name, self._ready(self._rewards).score(name, messages, replies)

    def explain_replies(
        self, messages: Sequence[ChatMessage], replies: Sequence[str], version: str | None = None
    ) -> tuple[str, ScoredReplies, TokenValues]:
        """Score replies and value their tokens, by the live version or another one.

        Raises:
            LoadingError: the engine does not run yet.
            NotFoundError: there is no such version.
            ConflictError: the version has no reward model.
        """
        name = self.engine.live_version if version is None else version
        versions.get_version(self.db, name)
        return name, *self._ready(self._rewards).explain(name, messages, replies)

    def next_refit_in(self) -> int | None:
        """How many more rankings start the next round; None where only a request does."""
        return trigger.next_refit_in(self.settings, self.db)

    def feedback_given(self) -> None:
        """Tell the trainer that there may be enough to start a round."""
        if self._supervisor is not None:
            self._supervisor.poke()

    def cancel_conversation(self, conversation_id: int) -> None:
        """Cut what still streams in a conversation that is about to be erased."""
        if self._turns is not None:
            self._turns.cancel_conversation(conversation_id)

    def _load(self) -> None:
        try:
            self._load_engine()
        except _StoppedError:
            return
        except ChatRLHFError as error:
            logger.error("the model cannot be loaded: %s", error)
            self.message = str(error)
        except Exception as error:
            logger.exception("the model cannot be loaded")
            self.message = f"The model cannot be loaded: {error}. The log has the details."
        else:
            self.status = "ok"
            return
        self.status = "failed"

    def _load_engine(self) -> None:
        opened = self._open_engine(self.db, self.settings, self._progress)
        self._progress("Starting the engine", 0.0)
        engine = opened.engine
        engine.start()
        live = LiveVersion(self.db, engine, opened.verify)
        try:
            live.start()
        except BaseException:
            engine.stop()
            raise
        self._engine, self._live = engine, live
        share = self.settings.chat.duels
        self._duels = Duels(self.db, live, lambda: engine.live_version, share)
        longest = self.settings.reward.max_tokens
        rewards = self._rewards = Rewards(engine, opened.verify, longest=longest)
        limits = self.settings.engine
        at_once = limits.active_turns + limits.queued_turns
        resident = ResidentEngine(engine, live)
        self._turns = Turns(self.db, resident, concurrent_turns=at_once, rewards=rewards)
        self._completions = Completions(resident, concurrent_requests=at_once)
        self._ahead = RepliesAhead(self.db, self.queue, self._turns, engine)
        self._ahead.start()
        if self._with_trainer:
            supervisor = Supervisor(self.settings, self.db, on_new_version=live.poke)
            supervisor.start()
            self._supervisor = supervisor

    def _progress(self, stage: str, fraction: float) -> None:
        if self._stopping.is_set():
            raise _StoppedError
        self._stage = (stage, min(1.0, max(0.0, fraction)))

    def _ready(self, part: Part | None) -> Part:
        if part is not None and self.status == "ok":
            return part
        if self.status == "failed":
            raise LoadingError(f"{self.message} Correct it and start the server again.")
        stage, fraction = self._stage
        raise LoadingError(f"The model is still loading ({stage}, {fraction:.0%}). Try again soon.")

    def _release(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class _StoppedError(Exception):
    """The server stops while the model loads."""


def build_app(
    settings: Settings, *, with_trainer: bool = True, open_engine: OpenEngine | None = None
) -> App:
    """An app that is not started yet. ``open_engine`` is replaced by tests only."""
    return App(settings, with_trainer=with_trainer, open_engine=open_engine or open_real_engine)


def _fill_pool(db: Database) -> None:
    """Give an empty database the prompts that come with the program."""
    if not prompts.never_filled(db):
        return
    source = resources.files("chatrlhf").joinpath("data/prompts.jsonl")
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line]
    prompts.add_prompts(
        db, [(row["text"], row.get("system_prompt", ""), row.get("tags", [])) for row in rows]
    )
