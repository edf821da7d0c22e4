"""What the loop needs of the engine; the real one and the one of the tests both have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from chatrlhf.engine.requests import (
    ChatMessage,
    EngineEvent,
    ReplyRequest,
    ScoredReplies,
    TokenValues,
)


class ReplyStream(Protocol):
    """The engine's answer to one request."""

    def next_event(self, timeout: float) -> EngineEvent | None:
        """The next event, or None when none came within ``timeout`` seconds."""

    def cancel(self, row: int | None = None) -> None:
        """Cut one reply, or all."""


class ReplyEngine(Protocol):
    """What turns need of the engine."""

    @property
    def live_version(self) -> str:
        """Name of the version that new requests get."""

    def submit(self, request: ReplyRequest) -> ReplyStream:
        """Queue a request, or refuse it by an error."""


class VersionedEngine(Protocol):
    """What the watcher of the live version needs of the engine."""

    def load_version(self, name: str, folder: Path) -> None:
        """Load a version into memory; VersionError when it is corrupt or does not fit."""

    def set_live(self, name: str) -> None:
        """Give new requests this version."""

    def resident_versions(self) -> Sequence[str]:
        """Names of the versions in memory."""


class ScoringEngine(Protocol):
    """What scoring replies needs of the engine."""

    @property
    def live_version(self) -> str:
        """Name of the version that new requests get."""

    def check_scoring(self, folder: Path) -> None:
        """Read a version's reward model ahead; ConflictError when it has none."""

    def score_replies(
        self,
        folder: Path,
        messages: Sequence[ChatMessage],
        replies: Sequence[str],
        longest: int,
        finished: Sequence[bool] | None = None,
    ) -> ScoredReplies:
        """Score replies by a version's reward model; ConflictError when it has none."""

    def token_values(
        self, folder: Path, messages: Sequence[ChatMessage], replies: Sequence[str], longest: int
    ) -> TokenValues:
        """What a version's critic expects after each token; ConflictError when it has none."""


class Engine(ReplyEngine, VersionedEngine, ScoringEngine, Protocol):
    """What the server needs of the engine."""

    def start(self) -> None:
        """Start the engine's thread."""

    def stop(self) -> None:
        """End it; running requests are interrupted."""

    def statistics(self) -> dict[str, Any]:
        """Numbers for people: requests, speed, versions, memory."""
