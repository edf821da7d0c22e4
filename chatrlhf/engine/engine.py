"""The engine: one thread owns the model, and all active requests decode in the same steps.

Callers submit requests and commands; the thread runs commands between steps (``scheduler.py``).
Requests keep the version they were admitted with (``slots.py``); a new one comes into memory beside
the steps (``version_loader.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from chatrlhf.engine.admission import check_request, room_for_reply
from chatrlhf.engine.batch import JointSteps
from chatrlhf.engine.cache_budget import cache_budget
from chatrlhf.engine.drawing import Drawer
from chatrlhf.engine.native_check import native_decoder
from chatrlhf.engine.native_step import NativeDecoder
from chatrlhf.engine.prefix_cache import PrefixCache
from chatrlhf.engine.requests import (
    ChatMessage,
    ReplyRequest,
    ScoredReplies,
    TokenValues,
)
from chatrlhf.engine.reward_scoring import ReplyScorer
from chatrlhf.engine.scheduler import Scheduler
from chatrlhf.engine.slots import Slots
from chatrlhf.engine.small_batch import speed_up
from chatrlhf.engine.streams import ReplyStream
from chatrlhf.engine.token_values import TokenValuer
from chatrlhf.engine.turn import Turn
from chatrlhf.engine.version_loader import VersionLoader, check_base
from chatrlhf.engine.work import Work
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.native import decoder as native
from chatrlhf.settings import EngineSettings


class Engine:
    """Answers requests with the versions in memory. Thread safe.

    ``context_tokens`` bounds prompt and reply together, below what the model can hold. From
    ``start`` on the model and the bank belong to the engine's thread and to the one that loads.
    """

    def __init__(
        self,
        base: BaseModel,
        bank: LoraBank,
        settings: EngineSettings,
        context_tokens: int | None = None,
    ) -> None:
        self._base = base
        self._bank = bank
        self._settings = settings
        self._context_tokens = min(base.context_tokens, context_tokens or base.context_tokens)
        self._prefixes = PrefixCache(settings.prefix_cache_tokens)
        on_cpu = base.device.type == "cpu"
        if on_cpu:
            speed_up(base.model)
        # On a CPU the small matrices of an adapter are faster in float32 than in bfloat16.
        dtype = torch.float32 if on_cpu else base.compute_dtype
        self._adapter_dtype = dtype
        self._slots = Slots(bank, settings.resident_versions, dtype, self._drop_prefixes)
        self._native: NativeDecoder | None = None
        threads = settings.threads or torch.get_num_threads()
        if settings.native == "auto" and on_cpu:
            self._native = native_decoder(base, bank, native.INT8, threads)
        # What is free now is free beside the weights, those in int8 too.
        self._budget = cache_budget(base, settings.cache_megabytes, settings.prefix_cache_tokens)
        self._scheduler = Scheduler(
            settings,
            self._budget,
            JointSteps(base, bank, self._native),
            Drawer(threads if settings.native == "auto" else None),
            lambda work: Turn(work, base, bank, self._prefixes, self._native),
            lambda work: self._slots.unpin(work.versions),
        )
        self._loader = VersionLoader(base, bank, self._slots, self._native, self._scheduler.command)
        self._scorer: tuple[Path, ReplyScorer] | None = None

    def start(self) -> None:
        """Start the engine's thread."""
        self._scheduler.start()

    def stop(self) -> None:
        """End the thread; running replies are interrupted, waiting requests fail."""
        self._scheduler.stop()
        self._loader.stop()

    @property
    def live_version(self) -> str:
        """The version that new requests get.

        Raises:
            LoadingError: none was set yet.
        """
        return self._slots.live

    def resident_versions(self) -> tuple[str, ...]:
        """Names of the versions in memory."""
        return self._slots.resident

    def load_version(self, name: str, folder: Path) -> None:
        """Load a version beside those that serve; nothing happens if it is in memory.

        Decoding goes on meanwhile, with one core less.

        Raises:
            VersionError: the files are corrupt, do not fit the base, or the model answers with
                values that are not numbers.
            OverloadedError: all slots are in use.
            LoadingError: the engine does not run.
        """
        self._scheduler.check_running()
        self._loader.load(name, folder)

    def set_live(self, name: str) -> None:
        """Give new requests this version; running ones keep theirs.

        Raises:
            NotFoundError: it is not in memory.
        """
        self._slots.set_live(name)

    def submit(self, request: ReplyRequest) -> ReplyStream:
        """Queue a request.

        Raises:
            BadInputError: it can never work.
            ContextOverflowError: the conversation is too long, or memory never holds the replies.
            NotFoundError: a version is not in memory.
            OverloadedError: too many requests wait, or the engine does not run.
        """
        check_request(request)
        prompt = tuple(self._base.chat_format.encode_prompt(request.messages))
        room = room_for_reply(len(prompt), request.sampling.max_new_tokens, self._context_tokens)

        def make() -> Work:
            versions = request.versions or (self._slots.live,) * request.replies
            needed = self._budget.check(len(prompt), room, len(versions), len(set(versions)))
            stream = ReplyStream(request.replies, self._scheduler.wake)
            adapters = self._slots.pin(versions)
            return Work(
                prompt, versions, adapters, request.sampling, room, request.seed, stream, needed
            )

        return self._scheduler.submit(make).stream

    def check_scoring(self, folder: Path) -> None:
        """Read the reward model of a version's folder, so that the next scoring need not.

        Raises:
            ConflictError: the version has no reward model, or only a classifier as its reward.
            VersionError: its files are corrupt or do not fit the base.
        """
        self._scorer_of(folder)

    def score_replies(
        self,
        folder: Path,
        messages: Sequence[ChatMessage],
        replies: Sequence[str],
        longest: int,
        finished: Sequence[bool] | None = None,
    ) -> ScoredReplies:
        """Score replies to a conversation by the reward model of a version's folder.

        Decoding goes on between every few replies; ``longest`` bounds context and reply together.
        ``finished`` says which replies ended by themselves, all by default.

        Raises:
            ConflictError: the version has no reward model, or only a classifier as its reward.
            VersionError: its files are corrupt or do not fit the base.
        """
        scorer = self._scorer_of(folder)
        return scorer.score(messages, replies, longest, self._scheduler.command, finished)

    def token_values(
        self, folder: Path, messages: Sequence[ChatMessage], replies: Sequence[str], longest: int
    ) -> TokenValues:
        """What the critic of a version's folder expects of replies after each token.

        Raises:
            ConflictError: the version has neither a critic nor a reward model.
            VersionError: its files are corrupt or do not fit the base.
        """
        files = read_version(folder)
        check_base(self._base, files.manifest)
        valuer = TokenValuer(self._base, self._bank, self._adapter_dtype, files, folder.name)
        return valuer.values(messages, replies, longest, self._scheduler.command)

    def statistics(self) -> dict[str, Any]:
        """Numbers for people: requests, tokens, speed, versions, memory."""
        turns, meter = self._scheduler.turns, self._scheduler.meter
        return {
            "active": len(turns),
            "queued": self._scheduler.queued,
            "tokens": meter.tokens,
            "tokens_per_second": round(meter.tokens_per_second, 1),
            "resident_versions": list(self._slots.resident),
            "live_version": self._slots.live if self._slots.is_live_set else None,
            "prefix_cache_tokens": self._prefixes.tokens,
            "prefix_cache_hits": self._prefixes.hits,
            "decoding": "torch" if self._native is None else str(self._native),
            "cache_bytes": sum(turn.cache_bytes for turn in turns),
            "cache_budget_bytes": self._budget.total,
        }

    def _scorer_of(self, folder: Path) -> ReplyScorer:
        """The scorer of a version; the last one is kept, as a version never changes."""
        kept = self._scorer
        if kept is not None and kept[0] == folder:
            return kept[1]
        files = read_version(folder)
        check_base(self._base, files.manifest)
        scorer = ReplyScorer(self._base, self._bank, self._adapter_dtype, files, folder.name)
        self._scorer = (folder, scorer)
        return scorer

    def _drop_prefixes(self, version: str) -> None:
        self._scheduler.command(lambda: self._prefixes.drop(version))
