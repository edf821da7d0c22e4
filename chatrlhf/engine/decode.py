"""Decode a batch step by step: one prefill, a cache that grows in place, rows that leave.

Notation: B rows, P prompts, T tokens in the cache (the longest row, others are left-padded),
V tokens of the vocabulary.

Departures from ``generate``: only the last position is projected to the vocabulary; K replies
to one prompt share its prefill; no attention mask exists where no row is padded; keys and values
are written into a buffer instead of being concatenated in every step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from chatrlhf.engine.kv_cache import GrowingCache, new_cache
from chatrlhf.engine.native_step import NativeDecoder, Segment
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.lora_layer import RowStack
from chatrlhf.native.decoder import MAX_ROWS

_SPARE = 128


class DecodeState:
    """A batch in the middle of decoding.

    ``logits`` (B, V) float32 are those to sample from after the last position of every row. Rows
    use the adapters pinned at the start; where none are, whatever is active on the bank. Single
    steps of pinned rows run on ``native`` where one is given and takes them. Call it under
    ``torch.inference_mode`` or ``torch.no_grad``.
    """

    def __init__(
        self,
        base: BaseModel,
        bank: LoraBank,
        cache: Cache | None = None,
        adapters: Sequence[str | None] | None = None,
        native: NativeDecoder | None = None,
    ) -> None:
        self.base = base
        self.bank = bank
        self.native = native
        self.cache: Cache = new_cache(base.model.config) if cache is None else cache
        self.length: int = self.cache.get_seq_length()
        self.logits: Tensor = torch.empty(0)
        self._adapters: tuple[str | None, ...] | None = None
        self._stack: RowStack | None = None
        # Which positions hold a token, (B, capacity), and how many do not, (B, 1).
        # None where no row is padded.
        self._is_token: Tensor | None = None
        self._pads: Tensor | None = None
        self._pin(adapters)

    @classmethod
    def prefill(
        cls,
        base: BaseModel,
        bank: LoraBank,
        prompts: Sequence[Sequence[int]],
        copies: int = 1,
        *,
        adapters: Sequence[str | None] | None = None,
        native: NativeDecoder | None = None,
    ) -> DecodeState:
        """Run the prompts once, then let ``copies`` rows share each (rows of a prompt adjacent).

        Args:
            base: the model.
            bank: its adapters.
            prompts: P lists of token ids, none empty.
            copies: rows a prompt.
            adapters: adapter of each prompt, pinned for the life of the state; without them
                whatever is active on the bank at each call.
            native: decodes single steps; without it torch does.
        """
        state = cls(base, bank, adapters=adapters, native=native)
        longest = max(len(prompt) for prompt in prompts)
        pads = [longest - len(prompt) for prompt in prompts]
        pad_id = base.chat_format.pad_token_id
        padded = [[pad_id] * pad + list(ids) for pad, ids in zip(pads, prompts, strict=True)]
        if any(pads):
            state._pads = torch.tensor(pads, device=base.device)[:, None]
            columns = torch.arange(longest + _SPARE, device=base.device)
            state._is_token = columns >= state._pads
        state.extend(torch.tensor(padded, device=base.device))
        if copies > 1:
            state.select([row for row in range(len(prompts)) for _ in range(copies)])
        return state

    @property
    def rows(self) -> int:
        """Number of rows, B."""
        return self.logits.shape[0]

    def step(self, token_ids: Tensor) -> Tensor:
        """Append one token a row (B,); return and keep the next logits (B, V) float32."""
        segment = self.segment(token_ids)
        if self.native is None or segment is None:
            return self.extend(token_ids.to(self.base.device)[:, None])
        self.stepped(self.native.step([segment]))
        return self.logits

    def segment(self, token_ids: Tensor) -> Segment | None:
        """These rows for a step of ``native``; None where it does not take them."""
        if self.native is None or self._adapters is None or not self.native.fits(self.cache):
            return None
        assert isinstance(self.cache, GrowingCache)
        return Segment(self.cache, token_ids, self._adapters, self._pads)

    def read(self, token_ids: Sequence[int], seconds: float, *, has_logits: bool) -> bool:
        """Append tokens to the only row by ``native``, fewer if so much time is over before.

        What they get does not depend on how they are cut. ``has_logits`` is whether ``logits`` are
        wanted after the last. False, and nothing is done, where ``native`` does not take the row.
        """
        if self.native is None or not self._adapters or not self.native.begin(self.cache):
            return False
        assert isinstance(self.cache, GrowingCache)
        until = time.monotonic() + seconds
        for start in range(0, len(token_ids), MAX_ROWS):
            piece = torch.tensor(token_ids[start : start + MAX_ROWS])
            wanted = has_logits and start + MAX_ROWS >= len(token_ids)
            names = self._adapters * len(piece)
            run = Segment(self.cache, piece, names, run=True, has_logits=wanted)
            logits = self.native.step([run])
            if wanted:
                self.logits = self.base.suppress(logits)
            self.length += len(piece)
            if time.monotonic() >= until:
                break
        return True

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapter of each row; there are."""
        return tuple(name for name in self._adapters or () if name is not None)

    def rewind(self, length: int) -> None:
        """Forget what a step that failed appended in some layers beyond ``length``."""
        if isinstance(self.cache, GrowingCache):
            for layer in self.cache.layers:
                layer.length = length
        self.length = length

    def stepped(self, logits: Tensor) -> None:
        """Note that a token a row was appended to the cache; ``logits`` are the model's own."""
        self.logits = self.base.suppress(logits)
        self.length += 1

    def extend(self, input_ids: Tensor) -> Tensor:
        """Append tokens (B, n) to all rows; return the logits (B, V) of the last position."""
        end = self.length + input_ids.shape[1]
        position_ids = torch.arange(self.length, end, device=input_ids.device)[None]
        attention_mask = None
        if self._is_token is not None and self._pads is not None:
            while end > self._is_token.shape[1]:
                wider = torch.ones_like(self._is_token)
                self._is_token = torch.cat([self._is_token, wider], dim=1)
            attention_mask = self._is_token[:, :end]
            position_ids = (position_ids - self._pads).clamp_(min=0)
        with self._adapted():
            hidden = self.base.body(
                input_ids, attention_mask, position_ids, past_key_values=self.cache, use_cache=True
            ).last_hidden_state
        self.logits = self.base.sampling_logits(hidden[:, -1])
        self.length = end
        return self.logits

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; memory of the others is freed."""
        if list(rows) != list(range(self.rows)):
            self.select(rows)

    def select(self, rows: Sequence[int]) -> None:
        """Make the batch consist of these rows; a row may be named several times."""
        index = torch.tensor(list(rows), dtype=torch.long, device=self.base.device)
        if isinstance(self.cache, GrowingCache):
            self.cache = self.cache.select(index)
        else:
            self.cache.batch_select_indices(index)
        self.logits = self.logits.index_select(0, index.to(self.logits.device))
        if self._pads is not None and self._is_token is not None:
            self._pads = self._pads.index_select(0, index)
            self._is_token = self._is_token.index_select(0, index)
        if self._adapters is not None:
            self._pin([self._adapters[row] for row in rows])

    def join(self, others: Sequence[DecodeState]) -> None:
        """Take in the rows of other states of the same length, all with pinned adapters.

        Raises:
            ValueError: a cache of this model cannot be joined, or the states do not match.
        """
        states = (self, *others)
        caches = [state.cache for state in states if isinstance(state.cache, GrowingCache)]
        pinned = [state._adapters for state in states if state._adapters is not None]
        lengths = {state.length for state in states}
        if len(lengths) > 1 or not len(caches) == len(pinned) == len(states):
            raise ValueError("these states cannot be joined")
        self.cache = caches[0].joined(caches[1:])
        self.logits = torch.cat([state.logits for state in states])
        self._pin([name for names in pinned for name in names])

    def _pin(self, adapters: Sequence[str | None] | None) -> None:
        """Remember the adapter of each row; rows that differ get a stack, made once."""
        self._adapters = None if adapters is None else tuple(adapters)
        self._stack = None
        if self._adapters and len(set(self._adapters)) > 1:
            names = [name for name in self._adapters if name is not None]
            if len(names) < len(self._adapters):
                raise ValueError("rows without an adapter cannot be mixed with rows that have one")
            self._stack = self.bank.stack(names)

    @contextmanager
    def _adapted(self) -> Iterator[None]:
        if self._stack is not None:
            with self.bank.using_rows(self._stack):
                yield
        elif self._adapters:
            with self.bank.using(self._adapters[0]):
                yield
        else:
            yield
