"""One admitted request: its prompt run chunk by chunk, then tokens for all its rows.

The steps of rows, and the draws, are made for several requests together (``batch.py``); what is
drawn comes back here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from chatrlhf.engine.cache_budget import CacheBudget
from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.drawing import Drawn, Wanted
from chatrlhf.engine.kv_cache import GrowingCache
from chatrlhf.engine.native_step import NativeDecoder
from chatrlhf.engine.prefix_cache import CHUNK, PrefixCache
from chatrlhf.engine.reply_text import ReplyText
from chatrlhf.engine.requests import (
    Delta,
    DrawnToken,
    Finished,
    FinishReason,
    Started,
)
from chatrlhf.engine.sampling import RowGenerator, most_probable, uniforms_at
from chatrlhf.engine.work import Work
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank


@dataclass
class _Row:
    index: int
    generator: RowGenerator
    text: ReplyText
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    drawn: list[DrawnToken] = field(default_factory=list)  # since the last event, if wanted

    def take_drawn(self) -> tuple[DrawnToken, ...]:
        """Hand over the tokens that no event had yet."""
        taken, self.drawn = tuple(self.drawn), []
        return taken


class Turn:
    """A request in work. Used by the engine's thread only.

    First ``prefill`` until there is a ``state``; then, in every step, ``wanted`` tokens are drawn
    and handed to ``accept``, which says what to append to the rows of the state.

    The stream's last event is the engine's to put, once the versions are let go.
    """

    def __init__(
        self,
        work: Work,
        base: BaseModel,
        bank: LoraBank,
        prefixes: PrefixCache,
        native: NativeDecoder | None = None,
    ) -> None:
        self._work = work
        self._native = native
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

    @property
    def state(self) -> DecodeState | None:
        """The rows in the middle of decoding; None while the prompt runs, and after the end."""
        return self._state

    @property
    def rows(self) -> int:
        """Replies that have not ended."""
        return len(self._rows)

    def most_cache_bytes(self, budget: CacheBudget) -> int:
        """What keys and values of the replies that go on may take at most."""
        versions = len({self._work.versions[row.index] for row in self._rows})
        prompt, new = len(self._work.prompt), self._work.max_new_tokens
        return budget.needed(prompt, new, len(self._rows), versions)

    @property
    def chunks_left(self) -> int:
        """Forward passes that the prompt takes still, at most."""
        begun = [self._prefilled.get(version) for version in self._to_prefill]
        left = [len(self._work.prompt) - (state.length if state else 0) for state in begun]
        return sum(-(-tokens // CHUNK) for tokens in left)

    def end_cancelled(self) -> None:
        """End the rows that nobody wants any more; their memory is free then."""
        kept = []
        for place, row in enumerate(self._rows):
            if self._work.stream.is_cancelled(row.index):
                self._finish(row, "cancelled")
            else:
                kept.append(place)
        if len(kept) < len(self._rows):
            self._leave(kept)

    def prefill(self, seconds: float = math.inf) -> None:
        """Run one chunk of the prompt; after the last, there is a state.

        Where the prompt can be cut anywhere, it is left when so much time is over.
        """
        version, prompt = self._to_prefill[0], self._work.prompt
        state = self._prefilled.get(version)
        if state is None:
            adapter = self._work.adapters[self._work.versions.index(version)]
            cache = self._prefixes.take(version, prompt)
            state = DecodeState(self._base, self._bank, cache, [adapter], self._native)
            self._prefilled[version] = state
        chunk = prompt[state.length : state.length + CHUNK]
        is_last = state.length + len(chunk) == len(prompt)
        if not state.read(chunk, seconds, has_logits=is_last):
            state.extend(torch.tensor([chunk], device=self._base.device))
        if state.length == len(prompt):
            if isinstance(state.cache, GrowingCache):
                self._prefixes.put(version, prompt, state.cache)
            self._to_prefill.pop(0)
            if not self._to_prefill:
                self._fan_out()

    def wanted(self) -> Wanted:
        """The tokens to draw next; there is a state."""
        assert self._state is not None
        uniforms = uniforms_at([row.generator for row in self._rows], self._steps)
        return Wanted(self._state.logits, self._work.sampling, uniforms)

    def accept(self, drawn: Drawn) -> Tensor | None:
        """Take the tokens drawn; those to append to the rows that go on, None where all ended."""
        assert self._state is not None
        self._note_drawn(self._state.logits, drawn)
        self._steps += 1
        sampled = len(self._rows)
        kept = []
        pairs = zip(drawn.token_ids.tolist(), drawn.logprobs.tolist(), strict=True)
        for place, (token, logprob) in enumerate(pairs):
            row = self._rows[place]
            reason = self._append(row, token, logprob)
            if reason is None:
                kept.append(place)
            else:
                self._finish(row, reason)
        self._leave(kept)
        if not kept:
            return None
        return drawn.token_ids if len(kept) == sampled else drawn.token_ids[kept]

    def end(self, reason: FinishReason) -> None:
        """End all rows that still run."""
        for row in self._rows:
            self._finish(row, reason)
        self._leave([])

    def abandon(self) -> None:
        """Give up without another event; frees the memory."""
        self._rows.clear()
        self._free()

    def _note_drawn(self, logits: Tensor, drawn: Drawn) -> None:
        """Keep what is wanted to be known of the tokens that were drawn, but for ends."""
        wanted = self._work.sampling.top_logprobs
        if wanted is None:
            return
        best: list[list[DrawnToken]] = [[] for _ in self._rows]
        if wanted:
            ids, values = most_probable(logits, self._work.sampling)
            best = [
                [self._drawn(*pair) for pair in zip(*row, strict=True)]
                for row in zip(ids.tolist(), values.tolist(), strict=True)
            ]
        token_ids, logprobs = drawn.token_ids.tolist(), drawn.logprobs.tolist()
        of_rows = zip(self._rows, token_ids, logprobs, best, strict=True)
        for row, token, logprob, alternatives in of_rows:
            if token not in self._ends:
                row.drawn.append(self._drawn(token, logprob, alternatives))

    def _drawn(
        self, token: int, logprob: float, alternatives: Sequence[DrawnToken] = ()
    ) -> DrawnToken:
        text = self._base.chat_format.token_bytes(token)
        return DrawnToken(token, text, logprob, tuple(alternatives))

    def _append(self, row: _Row, token: int, logprob: float) -> FinishReason | None:
        if token in self._ends:
            return "stop"
        row.token_ids.append(token)
        row.logprobs.append(logprob)
        piece = row.text.add(token)
        if piece:
            self._put(Delta(row.index, piece, row.take_drawn()))
        if row.text.stopped:
            return "stop"
        return "length" if len(row.token_ids) >= self._work.max_new_tokens else None

    def _finish(self, row: _Row, reason: FinishReason) -> None:
        piece = row.text.finish()
        if piece:
            self._put(Delta(row.index, piece, row.take_drawn()))
        self._put(
            Finished(
                row=row.index,
                text=row.text.text,
                token_ids=tuple(row.token_ids),
                logprobs=tuple(row.logprobs),
                finish_reason=reason,
                version=self._work.versions[row.index],
                seed=self._work.seed,
                tokens=row.take_drawn(),
            )
        )

    def _leave(self, kept: Sequence[int]) -> None:
        """Drop the rows that ended, and their memory."""
        self._rows = [self._rows[place] for place in kept]
        if not kept:
            self._free()
        elif self._state is not None:
            self._state.keep(kept)
        else:
            self._forget_versions({self._work.versions[row.index] for row in self._rows})

    def _forget_versions(self, wanted: Set[str]) -> None:
        """Run the prompt no more for versions whose replies all left."""
        self._to_prefill = [version for version in self._to_prefill if version in wanted]
        for version in self._prefilled.keys() - wanted:
            del self._prefilled[version]
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
