"""The reward models of versions, for the chat: is there one, and what does it say?"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from chatrlhf.engine.requests import ChatMessage, ScoredReplies, TokenValues
from chatrlhf.errors import ChatRLHFError
from chatrlhf.loop.ports import ScoringEngine

logger = logging.getLogger(__name__)


class Rewards:
    """Scores replies by a version's reward model. Thread safe.

    ``verify`` checks the files of a version and returns their folder, or raises VersionError;
    ``longest`` bounds context and reply together, in tokens. One request is scored at a time, so
    that however many wait, replies that stream go on between every few that are scored.
    """

    def __init__(
        self, engine: ScoringEngine, verify: Callable[[str], Path], *, longest: int
    ) -> None:
        self._engine = engine
        self._verify = verify
        self._longest = longest
        self._lock = threading.Lock()
        self._verified: tuple[str, Path] | None = None

    def why_none(self, version: str) -> str:
        """Why a version cannot score, in words; empty if it can."""
        try:
            self._engine.check_scoring(self._folder(version))
        except ChatRLHFError as error:
            return str(error)
        except Exception as error:
            logger.exception("the reward model of %s cannot be read", version)
            return f"The reward model of {version} cannot be read ({type(error).__name__})."
        return ""

    def score(
        self,
        version: str,
        messages: Sequence[ChatMessage],
        replies: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> ScoredReplies:
        """Score replies to a conversation; ``finished``: which ended by themselves, all by default.

        Raises:
            ConflictError: the version has no reward model, or only a classifier as its reward.
            VersionError: its files are corrupt or do not fit the base.
        """
        folder = self._folder(version)
        with self._lock:
            return self._engine.score_replies(folder, messages, replies, self._longest, finished)

    def explain(
        self, version: str, messages: Sequence[ChatMessage], replies: Sequence[str]
    ) -> tuple[ScoredReplies, TokenValues]:
        """Score replies, and say what the critic expects after each token; errors of ``score``."""
        folder = self._folder(version)
        with self._lock:
            scored = self._engine.score_replies(folder, messages, replies, self._longest)
            return scored, self._engine.token_values(folder, messages, replies, self._longest)

    def _folder(self, version: str) -> Path:
        kept = self._verified
        if kept is not None and kept[0] == version:
            return kept[1]
        folder = self._verify(version)
        self._verified = (version, folder)
        return folder
