"""A request that was checked, between the thread that asks and the one that answers."""

from __future__ import annotations

from dataclasses import dataclass

from chatrlhf.engine.requests import Sampling
from chatrlhf.engine.streams import ReplyStream


@dataclass(frozen=True)
class Work:
    """A checked request: tokens, pinned versions and their adapters (one a reply), limits.

    ``cache_bytes`` is what its keys and values may take at most.
    """

    prompt: tuple[int, ...]
    versions: tuple[str, ...]
    adapters: tuple[str, ...]
    sampling: Sampling
    max_new_tokens: int
    seed: int
    stream: ReplyStream
    cache_bytes: int = 0
