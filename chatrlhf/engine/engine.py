"""The engine: one thread owns the model and gives every active request one step in turn.

Callers submit requests and commands; the thread runs commands between steps, so a version is
never exchanged within a step. Requests keep the version they were admitted with (``slots.py``).
Prompts are run in chunks between the steps of others, so that a long prompt does not stop the
replies that stream.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch

from chatrlhf.engine.admission import check_request, room_for_reply
from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.prefix_cache import PrefixCache
from chatrlhf.engine.requests import (
    ChatMessage,
    Completed,
    Failed,
    ReplyRequest,
    ScoredReplies,
)
from chatrlhf.engine.reward_scoring import ReplyScorer
from chatrlhf.engine.slots import Slots
from chatrlhf.engine.small_batch import speed_up
from chatrlhf.engine.streams import Meter, ReplyStream
from chatrlhf.engine.turn import Turn, Work
from chatrlhf.errors import ChatRLHFError, LoadingError, OverloadedError, VersionError
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.settings import EngineSettings

logger = logging.getLogger(__name__)

_CANARY = (ChatMessage("user", "Hello! What is two and two?"),)
_COMMAND_SECONDS = 300.0
_STOP_SECONDS = 30.0


class Engine:
    """Answers requests with the versions in memory. Thread safe.

    ``context_tokens`` bounds prompt and reply together, below what the model can hold. From
    ``start`` on the model and the bank belong to the engine's thread.
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
        self._slots = Slots(bank, settings.resident_versions, dtype, self._prefixes.drop)
        self._changed = threading.Condition()
        self._queue: deque[Work] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        self._active: list[Turn] = []
        self._meter = Meter()
        self._running = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the engine's thread."""
        self._running = True
        self._thread.start()

    def stop(self) -> None:
        """End the thread; running replies are interrupted, waiting requests fail."""
        with self._changed:
            self._running = False
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

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

        Files are read and verified on the calling thread; decoding pauses for the copy and one
        short forward pass only.

        Raises:
            VersionError: the files are corrupt, do not fit the base, or the model answers with
                values that are not numbers.
            OverloadedError: all slots are in use.
        """
        if name in self._slots.resident:
            return
        files = read_version(folder)
        self._check_base(files.manifest)
        lora = files.policy.lora
        self._bank.check_state(lora)
        self._command(lambda: self._slots.load(name, lora, self._check_canary))

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
            ContextOverflowError: the conversation is too long.
            NotFoundError: a version is not in memory.
            OverloadedError: too many requests wait, or the engine does not run.
        """
        check_request(request)
        prompt = tuple(self._base.chat_format.encode_prompt(request.messages))
        room = room_for_reply(len(prompt), request.sampling.max_new_tokens, self._context_tokens)
        with self._changed:
            self._check_queue()
            versions = request.versions or (self._slots.live,) * request.replies
            adapters = self._slots.pin(versions)
            stream = ReplyStream(request.replies, self._wake)
            self._queue.append(
                Work(prompt, versions, adapters, request.sampling, room, request.seed, stream)
            )
            self._changed.notify()
        return stream

    def score_replies(
        self, folder: Path, messages: Sequence[ChatMessage], replies: Sequence[str], longest: int
    ) -> ScoredReplies:
        """Score finished replies to a conversation by the reward model of a version's folder.

        Decoding goes on between every few replies; ``longest`` bounds context and reply together.

        Raises:
            ConflictError: the version has no reward model, or only a classifier as its reward.
            VersionError: its files are corrupt or do not fit the base.
        """
        files = read_version(folder)
        self._check_base(files.manifest)
        scorer = ReplyScorer(self._base, self._bank, self._adapter_dtype, files, folder.name)
        return scorer.score(messages, replies, longest, self._command)

    def statistics(self) -> dict[str, Any]:
        """Numbers for people: requests, tokens, speed, versions, memory."""
        active = list(self._active)
        return {
            "active": len(active),
            "queued": len(self._queue),
            "tokens": self._meter.tokens,
            "tokens_per_second": round(self._meter.tokens_per_second, 1),
            "resident_versions": list(self._slots.resident),
            "live_version": self._slots.live if self._slots.is_live_set else None,
            "prefix_cache_tokens": self._prefixes.tokens,
            "prefix_cache_hits": self._prefixes.hits,
            "cache_bytes": sum(turn.cache_bytes for turn in active),
        }

    def _check_queue(self) -> None:
        if not self._running:
            raise OverloadedError("The engine is not running. Try again when the server is up.")
        free = self._settings.active_turns - len(self._active)
        if len(self._queue) - max(free, 0) >= self._settings.queued_turns:
            raise OverloadedError(
                f"{len(self._queue)} requests are waiting already. Try again in a moment."
            )

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _command(self, action: Callable[[], None]) -> None:
        """Have the engine's thread do something between two steps, and wait for it."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                action()
            except BaseException as error:  # noqa: BLE001  it is raised on the calling thread
                done.set_exception(error)
            else:
                done.set_result(None)

        with self._changed:
            if not self._running:
                raise LoadingError("The engine is not running. Start it first.")
            self._commands.append(run)
            self._changed.notify()
        done.result(_COMMAND_SECONDS)

    def _check_base(self, manifest: Mapping[str, Any]) -> None:
        made_for = manifest.get("base", {}).get("sha256")
        if made_for and made_for != self._base.base_sha256:
            raise VersionError(
                f"The version was made for the base {made_for[:12]}..., and this one is "
                f"{self._base.base_sha256[:12]}.... Choose the model it was made for."
            )

    def _check_canary(self, adapter: str) -> None:
        prompt = self._base.chat_format.encode_prompt(_CANARY)
        state = DecodeState.prefill(self._base, self._bank, [prompt], adapters=[adapter])
        if not bool(torch.isfinite(state.logits).all()):
            raise VersionError(
                "With this version the model answers with values that are not numbers."
            )

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while self._wait():
                self._run_commands()
                self._admit()
                for turn in list(self._active):
                    self._advance(turn)
                    self._run_commands()
        except BaseException:
            logger.exception("the engine's thread ended")
            raise
        finally:
            self._close()

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when the engine is to stop."""
        with self._changed:
            while self._running and not (self._queue or self._commands or self._active):
                self._changed.wait()
            return self._running

    def _run_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _admit(self) -> None:
        """Move requests from the queue into work; those cancelled before leave at once."""
        while True:
            with self._changed:
                work = self._next_work()
                if work is None:
                    return
                turn = Turn(work, self._base, self._bank, self._prefixes)
                self._active.append(turn)
            turn.start()

    def _next_work(self) -> Work | None:
        for work in self._queue:
            if work.stream.all_cancelled:
                self._queue.remove(work)
                return work
        if self._queue and len(self._active) < self._settings.active_turns:
            return self._queue.popleft()
        return None

    def _advance(self, turn: Turn) -> None:
        started = time.monotonic()
        last: Completed | Failed = Completed()
        try:
            if tokens := turn.advance():
                self._meter.add(started, tokens)
        except Exception as error:
            logger.exception("a request failed")
            turn.abandon()
            last = _failure(error)
        if turn.finished:
            self._retire(turn, last)

    def _retire(self, turn: Turn, last: Completed | Failed) -> None:
        with self._changed:
            self._active.remove(turn)
        self._slots.unpin(turn.work.versions)
        turn.work.stream.put(last)

    def _close(self) -> None:
        """End what is left, so that nobody waits for an engine that is gone."""
        with self._changed:
            self._running = False
            waiting = list(self._queue)
            self._queue.clear()
        for turn in list(self._active):
            turn.end("interrupted")
            self._retire(turn, Completed())
        for work in waiting:
            self._slots.unpin(work.versions)
            work.stream.put(Failed("overloaded", "The server stopped. Ask again.", 503))
        self._run_commands()


def _failure(error: Exception) -> Failed:
    """What a person is told."""
    if isinstance(error, ChatRLHFError):
        return Failed(error.code, str(error), error.http_status)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Failed(
            "out_of_memory",
            "The memory does not hold this conversation. Ask for fewer replies or start a new one.",
            503,
        )
    return Failed(
        "model",
        f"The model failed while it answered ({type(error).__name__}: {error}). Ask again; the "
        "log has the details.",
    )
