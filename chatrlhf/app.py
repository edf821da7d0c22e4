"""Composition root: the only place that builds long-lived objects.

``start`` returns as soon as the database is open; the base model is fetched, loaded and set to
work by a thread, so that the page can show how far it is.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, Literal, TypeVar

from chatrlhf.engine.requests import ChatMessage, ScoredReplies
from chatrlhf.errors import ChatRLHFError, ConflictError, LoadingError, ModelError, VersionError
from chatrlhf.loop import trigger
from chatrlhf.loop.completions import Completions
from chatrlhf.loop.live_version import LiveVersion, Verify
from chatrlhf.loop.ports import Engine
from chatrlhf.loop.supervisor import Supervisor, trainer_status
from chatrlhf.loop.turns import Turns
from chatrlhf.settings import Settings
from storage import conversations, people, prompts, runs, versions
from storage.database import Database, lock_data_folder, open_database
from storage.locks import FileLock
from storage.records import Person

logger = logging.getLogger(__name__)

Status = Literal["loading", "ok", "failed"]
Progress = Callable[[str, float], None]
Part = TypeVar("Part")


@dataclass(frozen=True)
class Opened:
    """An engine that is not started yet, and the check of a version's files."""

    engine: Engine
    verify: Verify


OpenEngine = Callable[[Database, Settings, Progress], Opened]


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
        self._person: Person | None = None
        self._lock: FileLock | None = None
        self._engine: Engine | None = None
        self._verify: Verify | None = None
        self._turns: Turns | None = None
        self._completions: Completions | None = None
        self._live: LiveVersion | None = None
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
            self._person = people.ensure_local_person(self._db)
            interrupted = conversations.interrupt_streaming(self._db)
            if interrupted:
                logger.warning("%d replies were cut off when the server last ended", interrupted)
            _fill_pool(self._db)
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
        """The one person of local use."""
        if self._person is None:
            raise LoadingError("The server is not started.")
        return self._person

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
    def completions(self) -> Completions:
        """Starts completions that are not stored; LoadingError until the engine runs."""
        return self._ready(self._completions)

    @property
    def live(self) -> LiveVersion:
        """Moves the live version; LoadingError until the engine runs."""
        return self._ready(self._live)

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
        folder = self._ready(self._verify)(name)
        longest = self.settings.reward.max_tokens
        return name, self.engine.score_replies(folder, messages, replies, longest)

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
        self._engine, self._live, self._verify = engine, live, opened.verify
        limits = self.settings.engine
        at_once = limits.active_turns + limits.queued_turns
        self._turns = Turns(self.db, engine, concurrent_turns=at_once)
        self._completions = Completions(engine, concurrent_requests=at_once)
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


def open_real_engine(db: Database, settings: Settings, progress: Progress) -> Opened:
    """Fetch and load the base model, publish the starter version, and build the engine."""
    progress("Starting", 0.0)
    # Imported here: torch takes seconds, and the page should be up before.
    from chatrlhf.engine.engine import Engine as RealEngine
    from chatrlhf.loop import publish
    from chatrlhf.models import catalog
    from chatrlhf.models.base_model import load_base_model
    from chatrlhf.models.lora import LoraBank

    model = settings.model
    folder = catalog.ensure_local(catalog.find_source(model.name), progress)
    progress("Loading the model", 0.0)
    base = load_base_model(folder, quantization=model.quantization, device=model.device)
    bank = LoraBank(base.model, model.lora_rank, model.lora_alpha)
    progress("Publishing the first version", 0.0)
    current = runs.current_run(db)
    if current is None or current.state == "queued":  # else a trainer may be publishing just now
        publish.remove_orphans(db, settings)
    publish.publish_starter(db, settings, base, bank)
    verify = partial(publish.verify_version, db, settings)
    _refuse_another_base(db, verify, base.base_sha256)
    engine = RealEngine(base, bank, settings.engine, model.context_tokens)
    return Opened(engine, verify)


def _refuse_another_base(db: Database, verify: Verify, base_sha256: str) -> None:
    """Versions of another base are not broken: they must not end up in quarantine."""
    live = versions.get_alias(db, "live")
    if live is None:
        return
    try:
        manifest = json.loads((verify(live) / "manifest.json").read_text(encoding="utf-8"))
    except VersionError:
        return  # broken indeed
    made_for = manifest.get("base", {})
    if made_for.get("sha256") != base_sha256:
        raise ModelError(
            f"The versions in this data folder belong to the model {made_for.get('name')!r}. Start "
            f"with --model {made_for.get('name')}, or choose another folder with --data."
        )


def _fill_pool(db: Database) -> None:
    """Give an empty database the prompts that come with the program."""
    if prompts.list_prompts(db, limit=1):
        return
    source = resources.files("chatrlhf").joinpath("data/prompts.jsonl")
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line]
    prompts.add_prompts(
        db, [(row["text"], row.get("system_prompt", ""), row.get("tags", [])) for row in rows]
    )
