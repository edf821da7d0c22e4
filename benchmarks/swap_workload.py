"""What ``swap.py`` measures. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

from chatrlhf.engine.requests import Sampling
from chatrlhf.settings import ChatSettings


@dataclass(frozen=True)
class SwapWorkload:
    """``conversations`` people chat without a break while ``swaps`` versions are published."""

    folder: str
    conversations: int = 3
    replies: int = 4
    tokens: int = 64
    swaps: int = 12
    pause_seconds: float = 1.0
    resident_versions: int = 4
    deviation: float = 0.02
    threads: int = 2
    quantization: str = "auto"

    @property
    def sampling(self) -> Sampling:
        """That of the chat."""
        chat = ChatSettings()
        return Sampling(chat.temperature, chat.top_p, chat.top_k, self.tokens)
