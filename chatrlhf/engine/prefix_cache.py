"""Keys and values of prompts that were run, for the next turn of the same conversation.

A reply must not depend on what is cached, and rounding depends on how a prompt is cut into
forward passes. So prompts are always run in chunks of ``CHUNK`` tokens counted from the first
token, only whole chunks are kept, and only whole chunks are reused: what a hit gives is bit for
bit what running the prompt again would give. Tokens of replies are not kept for that reason:
they were computed one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from chatrlhf.engine.kv_cache import GrowingCache

CHUNK = 128


class PrefixCache:
    """Caches of one row each, keyed by version and tokens, evicted least recently used.

    ``budget`` bounds the sum of their tokens; 0 keeps nothing. Used by the engine's thread only.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: OrderedDict[tuple[str, tuple[int, ...]], GrowingCache] = OrderedDict()
        self.tokens = 0
        self.hits = 0

    def put(self, version: str, prompt: Sequence[int], cache: GrowingCache) -> None:
        """Keep a copy of the whole chunks of a prompt that ``cache`` (one row) begins with."""
        length = len(prompt) // CHUNK * CHUNK
        if not 0 < length <= self._budget:
            return
        key = (version, tuple(prompt[:length]))
        if key in self._entries:
            self._entries.move_to_end(key)
            return
        self._forget_prefixes(*key)
        self._entries[key] = cache.select(torch.tensor([0]), length)
        self.tokens += length
        while self.tokens > self._budget:
            (_, tokens), _ = self._entries.popitem(last=False)
            self.tokens -= len(tokens)

    def take(self, version: str, prompt: Sequence[int]) -> GrowingCache | None:
        """A copy of the longest kept run of chunks that ``prompt`` begins with and goes beyond."""
        best, best_key = 0, None
        for key in self._entries:
            if key[0] == version:
                # One token at least is left to run: its logits are wanted.
                shared = min(_common(key[1], prompt), len(prompt) - 1) // CHUNK * CHUNK
                if shared > best:
                    best, best_key = shared, key
        if best_key is None:
            return None
        self._entries.move_to_end(best_key)
        self.hits += 1
        return self._entries[best_key].select(torch.tensor([0]), best)

    def drop(self, version: str) -> None:
        """Forget all prefixes of a version."""
        for key in [key for key in self._entries if key[0] == version]:
            self._remove(key)

    def _forget_prefixes(self, version: str, tokens: tuple[int, ...]) -> None:
        """Drop entries that the new one contains: earlier turns of the same conversation."""
        for key in list(self._entries):
            if key[0] == version and key[1] == tokens[: len(key[1])]:
                self._remove(key)

    def _remove(self, key: tuple[str, tuple[int, ...]]) -> None:
        del self._entries[key]
        self.tokens -= len(key[1])


def _common(kept: Sequence[int], prompt: Sequence[int]) -> int:
    """Number of first tokens that are the same."""
    count = 0
    for left, right in zip(kept, prompt, strict=False):
        if left != right:
            break
        count += 1
    return count
