"""One decode step of the rows of several requests: of any lengths, and by any versions.

Rows join and leave between steps. On the native library, and with torch on a CPU, a row gets the
bits that it gets alone.

A step that fails for several requests is tried again for each alone, once, so that only those fail
that must. Nothing is appended to a cache by a step that failed.

Notation: R rows of a step, V tokens of the vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.kv_cache import GrowingCache
from chatrlhf.engine.native_step import NativeDecoder
from chatrlhf.engine.segments import SegmentCache, attend_by_segments
from chatrlhf.engine.small_batch import FEW_ROWS, joint_rows
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.lora_layer import RowStack
from chatrlhf.native import decoder as native

logger = logging.getLogger(__name__)

_MOST_ROWS_ON_GPU = 128


@dataclass(frozen=True)
class Advance:
    """One token a row (R,) to append to a state."""

    state: DecodeState
    token_ids: Tensor


class JointSteps:
    """Steps of a model's states. For the engine's thread."""

    def __init__(self, base: BaseModel, bank: LoraBank, native_one: NativeDecoder | None) -> None:
        self._base = base
        self._bank = bank
        self._native = native_one
        self._logits: list[Tensor] = []
        self._stack: tuple[list[tuple[str, int]], RowStack] | None = None
        self._by_segments = native_one is None and self._can_attend_by_segments()

    def groups(self, advances: Sequence[Advance]) -> Iterator[list[Advance]]:
        """Those that can take a step together, in order; all of them make a round.

        The logits of all the states are invalid from the first step of the round on.
        """
        limit = native.MAX_ROWS if self._native else self._most_rows
        group: list[Advance] = []
        for advance in advances:
            rows = sum(len(one.token_ids) for one in group)
            is_joint = self._can_join(advance.state) and (
                not group or self._can_join(group[0].state)
            )
            if group and not (is_joint and rows + len(advance.token_ids) <= limit):
                yield group
                group = []
            group.append(advance)
        if group:
            yield group

    def step(self, group: Sequence[Advance], number: int = 0) -> list[Exception | None]:
        """Take a step with a group, the one of this number in its round; why each failed."""
        if len(group) == 1:
            return [self._alone(group[0])]
        before = [one.state.length for one in group]
        try:
            self._together(group, number)
        except Exception:
            logger.warning("a step of %d requests failed", len(group), exc_info=True)
        else:
            return [None] * len(group)
        for one, length in zip(group, before, strict=True):
            one.state.rewind(length)
        return [self._alone(one) for one in group]

    @property
    def _most_rows(self) -> int:
        return FEW_ROWS if self._base.device.type == "cpu" else _MOST_ROWS_ON_GPU

    def _can_join(self, state: DecodeState) -> bool:
        if not isinstance(state.cache, GrowingCache):
            return False
        if self._native is not None:
            return self._native.fits(state.cache)
        return self._by_segments

    def _alone(self, one: Advance) -> Exception | None:
        length = one.state.length
        try:
            if self._native is None and self._can_join(one.state):
                one.state.stepped(self._by_torch([one]))  # as it would be in a group
            else:
                one.state.step(one.token_ids)
        except Exception as error:
            logger.exception("a request failed")
            one.state.rewind(length)
            return error
        return None

    @torch.inference_mode()
    def _can_attend_by_segments(self) -> bool:
        """Whether the model's own code takes a step over several caches."""
        if not attend_by_segments(self._base.model):
            return False
        token = self._base.chat_format.end_token_id
        states = [DecodeState(self._base, self._bank, adapters=[]) for _ in range(2)]
        if not all(isinstance(state.cache, GrowingCache) for state in states):
            return False
        token_ids = torch.tensor([token], device=self._base.device)
        for state in states:
            state.extend(token_ids[:, None])
        try:
            self._by_torch([Advance(state, token_ids) for state in states])
        except Exception:
            logger.warning(
                "requests are decoded one by one, by %s", self._base.folder.name, exc_info=True
            )
            return False
        return True

    def _together(self, group: Sequence[Advance], number: int) -> None:
        logits = self._natively(group, number) if self._native else self._by_torch(group)
        of_each = torch.split_with_sizes(logits, [len(one.token_ids) for one in group])
        for one, own in zip(group, of_each, strict=True):
            one.state.stepped(own)

    def _natively(self, group: Sequence[Advance], number: int) -> Tensor:
        assert self._native is not None
        segments = [one.state.segment(one.token_ids) for one in group]
        whole = [segment for segment in segments if segment is not None]
        assert len(whole) == len(group)
        while len(self._logits) <= number:  # the same memory in every round: none to clear
            self._logits.append(torch.empty(native.MAX_ROWS, self._native.vocabulary))
        rows = sum(segment.rows for segment in whole)
        return self._native.step(whole, out=self._logits[number][:rows])

    def _by_torch(self, group: Sequence[Advance]) -> Tensor:
        device = self._base.device
        states = [one.state for one in group]
        rows = [len(one.token_ids) for one in group]
        caches = [state.cache for state in states if isinstance(state.cache, GrowingCache)]
        token_ids = torch.cat([one.token_ids for one in group]).to(device)
        lengths = torch.tensor([state.length for state in states])
        positions = lengths.repeat_interleave(torch.tensor(rows)).to(device)
        names = [name for state in states for name in state.adapters]
        with self._using(names), joint_rows():
            hidden = self._base.body(
                token_ids[:, None],
                None,
                positions[:, None],
                past_key_values=SegmentCache(caches, rows),
                use_cache=True,
            ).last_hidden_state
            return self._base.project(hidden[:, -1])

    def _using(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Apply the adapter of each row; what is gathered for it serves until rows change."""
        if len(set(names)) <= 1:
            self._stack = None
            return self._bank.using(names[0] if names else None)
        key = [(name, self._bank.revision(name)) for name in names]
        if self._stack is None or self._stack[0] != key:
            self._stack = key, self._bank.stack(names)
        return self._bank.using_rows(self._stack[1])
