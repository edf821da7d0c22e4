"""One admitted request: its prompt run chunk by chunk, then all its rows step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.kv_cache import GrowingCache
from chatrlhf.engine.prefix_cache import CHUNK, PrefixCache
from chatrlhf.engine.reply_text import ReplyText
from chatrlhf.engine.requests import (
    Delta,
    Finished,
    FinishReason,
    Sampling,
    Started,
)
from chatrlhf.engine.sampling import RowGenerator, sample, uniforms_at
from chatrlhf.engine.streams import ReplyStream
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank


@dataclass(frozen=True)
class Work:
    """A checked request: tokens, pinned versions and their adapters (one a reply), limits."""

    prompt: tuple[int, ...]
    versions: tuple[str, ...]
    adapters: tuple[str, ...]
    sampling: Sampling
    max_new_tokens: int
    seed: int
    stream: ReplyStream


@dataclass
class _Row:
    index: int
    generator: RowGenerator
    text: ReplyText
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Turn:
    """A request in work; ``advance`` does one forward pass. Used by the engine's thread only.

    The stream's last event is the engine's to put, once the versions are let go.
    """

    def __init__(self, work: Work, base: BaseModel, bank: LoraBank, prefixes: PrefixCache) -> None:
        self._work = work
        self._base = base
        self._bank = bank
        self._prefixes = prefixes
        self._ends = base.chat_format.end_token_ids
        self._rows = [
            _Row(
                index,
                RowGenerator(work.seed, index),
                ReplyText(base.chat_format, work.sampling.stop),
            )
            for index in range(len(work.versions))
        ]
        # Versions whose prompt is still to be run, each alone, so that a reply does not depend
        # on which other versions answer the same prompt.
        self._to_prefill = list(dict.fromkeys(work.versions))
        self._prefilled: dict[str, DecodeState] = {}
        self._state: DecodeState | None = None
        self._steps = 0

    @property
    def work(self) -> Work:
        """What was asked."""
        return self._work

    @property
    def finished(self) -> bool:
        """Whether all replies ended."""
        return not self._rows

    @property
    def cache_bytes(self) -> int:
        """Memory of keys and values."""
        # Read by other threads: both are taken once.
        state = self._state
        states = [*list(self._prefilled.values()), *([state] if state else [])]
        caches = [state.cache for state in states]
        return sum(cache.nbytes for cache in caches if isinstance(cache, GrowingCache))

    def start(self) -> None:
        """Tell the stream that work begins."""
        self._put(Started(self._work.versions, len(self._work.prompt)))

    def advance(self) -> int:
        """Run one chunk of the prompt, or sample a token a row and run them; tokens sampled."""
        self._end_cancelled()
        if self.finished:
            return 0
        if self._state is None:
            self._prefill_chunk()
            return 0
        return self._decode(self._state)

    def end(self, reason: FinishReason) -> None:
        """End all rows that still run."""
        for row in self._rows:
            self._finish(row, reason)
        self._leave([])

    def abandon(self) -> None:
        """Give up without another event; frees the memory."""
        self._rows.clear()
        self._free()

    def _decode(self, state: DecodeState) -> int:
        uniforms = uniforms_at([row.generator for row in self._rows], self._steps)
        token_ids, logprobs = sample(state.logits, self._work.sampling, uniforms)
        self._steps += 1
        sampled = len(self._rows)
        kept = []
        for place, (token, logprob) in enumerate(
            zip(token_ids.tolist(), logprobs.tolist(), strict=True)
        ):
            row = self._rows[place]
            reason = self._append(row, token, logprob)
            if reason is None:
                kept.append(place)
            else:
                self._finish(row, reason)
        self._leave(kept)
        if kept:
            state.step(token_ids if len(kept) == sampled else token_ids[kept])
        return sampled

    def _append(self, row: _Row, token: int, logprob: float) -> FinishReason | None:
        if token in self._ends:
            return "stop"
        row.token_ids.append(token)
        row.logprobs.append(logprob)
        piece = row.text.add(token)
        if piece:
            self._put(Delta(row.index, piece))
        if row.text.stopped:
            return "stop"
        return "length" if len(row.token_ids) >= self._work.max_new_tokens else None

    def _finish(self, row: _Row, reason: FinishReason) -> None:
        piece = row.text.finish()
        if piece:
            self._put(Delta(row.index, piece))
        self._put(
            Finished(
                row=row.index,
                text=row.text.text,
                token_ids=tuple(row.token_ids),
                logprobs=tuple(row.logprobs),
                finish_reason=reason,
                version=self._work.versions[row.index],
                seed=self._work.seed,
            )
        )

    def _leave(self, kept: Sequence[int]) -> None:
        """Drop the rows that ended, and their memory."""
        self._rows = [self._rows[place] for place in kept]
        if not kept:
            self._free()
        elif self._state is not None:
            self._state.keep(kept)

    def _end_cancelled(self) -> None:
        kept = []
        for place, row in enumerate(self._rows):
            if self._work.stream.is_cancelled(row.index):
                self._finish(row, "cancelled")
            else:
                kept.append(place)
        if len(kept) < len(self._rows):
            self._leave(kept)

    def _prefill_chunk(self) -> None:
        version, prompt = self._to_prefill[0], self._work.prompt
        state = self._prefilled.get(version)
        if state is None:
            adapter = self._work.adapters[self._work.versions.index(version)]
            cache = self._prefixes.take(version, prompt)
            state = DecodeState(self._base, self._bank, cache, [adapter])
            self._prefilled[version] = state
        chunk = prompt[state.length : state.length + CHUNK]
        state.extend(torch.tensor([chunk], device=self._base.device))
        if state.length == len(prompt):
            if isinstance(state.cache, GrowingCache):
                self._prefixes.put(version, prompt, state.cache)
            self._to_prefill.pop(0)
            if not self._to_prefill:
                self._fan_out()

    def _fan_out(self) -> None:
        """Let every row share the prefill of its version."""
        versions = list(self._prefilled)
        first, *others = self._prefilled.values()
        if others:
            first.join(others)
        wanted = [versions.index(self._work.versions[row.index]) for row in self._rows]
        if wanted != [0]:
            first.select(wanted)
        self._prefilled.clear()
        self._state = first

    def _free(self) -> None:
        self._state = None
        self._prefilled.clear()

    def _put(self, event: Started | Delta | Finished) -> None:
        self._work.stream.put(event)
