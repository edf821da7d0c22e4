"""An engine without a model: real threads and real events, canned words."""

from __future__ import annotations

import itertools
import queue
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chatrlhf.engine.requests import (
    ChatMessage,
    Completed,
    Delta,
    EngineEvent,
    Failed,
    Finished,
    ReplyRequest,
    ReplyScore,
    ReplyValues,
    ScoredReplies,
    Started,
    TokenValue,
    TokenValues,
)
from chatrlhf.errors import ChatRLHFError, ConflictError, NotFoundError, VersionError


class FakeStream:
    """Events of one request; ``next_event`` as the engine's."""

    def __init__(self) -> None:
        self.events: queue.Queue[EngineEvent] = queue.Queue()
        self.cancelled: set[int] = set()
        self.all_cancelled = threading.Event()

    def next_event(self, timeout: float) -> EngineEvent | None:
        try:
            return self.events.get(timeout=timeout)
        except queue.Empty:
            return None

    def cancel(self, row: int | None = None) -> None:
        if row is None:
            self.all_cancelled.set()
        else:
            self.cancelled.add(row)


class FakeEngine:
    """Row ``i`` says "word0 word1 ... <row>" in as many deltas as there are words.

    Clear ``go`` to hold all streams after their first word; ``refuse`` is raised by ``submit``;
    ``fail_before_start`` and ``fail_after_start`` end streams by ``Failed``; ``fail_scoring`` is
    raised by scoring, and ``score``, if given, takes the place of the number of letters.
    """

    def __init__(self, words: int = 3) -> None:
        self.words = words
        self.go = threading.Event()
        self.go.set()
        self.refuse: ChatRLHFError | None = None
        self.fail_before_start: Failed | None = None
        self.fail_after_start: Failed | None = None
        self.requests: list[ReplyRequest] = []
        self.fail_scoring: Exception | None = None
        self.score: Callable[[str], float] | None = None
        self.finished: Sequence[bool] | None = None
        self.scored: list[tuple[str, tuple[ChatMessage, ...], int]] = []
        self.streams: list[FakeStream] = []
        self.resident: dict[str, Path] = {}
        self.broken: set[str] = set()
        self.live: str | None = None
        self.running = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False
        self.go.set()
        for stream in self.streams:
            stream.cancel()
        for thread in self._threads:
            thread.join(10)

    @property
    def live_version(self) -> str | None:
        return self.live

    def load_version(self, name: str, folder: Path) -> None:
        if name in self.broken:
            raise VersionError(f"{name} is broken.")
        self.resident[name] = folder

    def set_live(self, name: str) -> None:
        assert name in self.resident
        self.live = name

    def resident_versions(self) -> Sequence[str]:
        return tuple(self.resident)

    def check_scoring(self, folder: Path) -> None:
        if folder.name == "v0":
            raise ConflictError("v0 has no reward model.")

    def score_replies(
        self,
        folder: Path,
        messages: Sequence[ChatMessage],
        replies: Sequence[str],
        longest: int,
        finished: Sequence[bool] | None = None,
    ) -> ScoredReplies:
        """The score of a reply is the number of its letters; ``v0`` has no reward model."""
        self.check_scoring(folder)
        if self.fail_scoring is not None:
            raise self.fail_scoring
        self.scored.append((folder.name, tuple(messages), longest))
        self.finished = finished
        if self.score is not None:
            values = [self.score(text) for text in replies]
            return ScoredReplies(tuple(ReplyScore(value, {}, 0.0) for value in values), ())
        scores = [ReplyScore(len(text), {"ranking": float(len(text))}, 0.5) for text in replies]
        return ScoredReplies(tuple(scores), ("classifier",))

    def token_values(
        self, folder: Path, messages: Sequence[ChatMessage], replies: Sequence[str], longest: int
    ) -> TokenValues:
        """A token a word; its value is the number of letters up to it."""
        self.check_scoring(folder)
        found = []
        for text in replies:
            words = [word for word in re.split(r"(?<=\s)", text) if word]
            lengths = itertools.accumulate(map(len, words))
            values = [float(length) for length in lengths]
            found.append(ReplyValues(0.0, tuple(map(TokenValue, words, values))))
        return TokenValues("critic", tuple(found))

    def statistics(self) -> dict[str, Any]:
        return {"requests": len(self.requests)}

    def submit(self, request: ReplyRequest) -> FakeStream:
        if self.refuse is not None:
            raise self.refuse
        for version in request.versions:
            if version not in self.resident:
                raise NotFoundError(f"{version} is not in memory.")
        stream = FakeStream()
        self.requests.append(request)
        self.streams.append(stream)
        thread = threading.Thread(target=self._speak, args=(request, stream), daemon=True)
        self._threads.append(thread)
        thread.start()
        return stream

    def _speak(self, request: ReplyRequest, stream: FakeStream) -> None:
        put = stream.events.put
        if self.fail_before_start is not None:
            put(self.fail_before_start)
            return
        versions = request.versions or (str(self.live),) * request.replies
        put(Started(versions=versions, prompt_tokens=7))
        said = [""] * request.replies
        for place in range(self.words):
            if place == 1:
                self.go.wait(30)
                if self.fail_after_start is not None:
                    put(self.fail_after_start)
                    return
            for row in range(request.replies):
                if not self._is_cut(stream, row):
                    word = f"word{place} "
                    said[row] += word
                    put(Delta(row, word))
        for row in range(request.replies):
            cut = self._is_cut(stream, row)
            if not cut:
                said[row] += str(row)
                put(Delta(row, str(row)))
            put(
                Finished(
                    row=row,
                    text=said[row],
                    token_ids=tuple(range(len(said[row].split()))),
                    logprobs=(-0.5,) * len(said[row].split()),
                    finish_reason="cancelled" if cut else "stop",
                    version=versions[row],
                    seed=request.seed,
                )
            )
        put(Completed())

    def _is_cut(self, stream: FakeStream, row: int) -> bool:
        return stream.all_cancelled.is_set() or row in stream.cancelled
