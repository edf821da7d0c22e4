"""A decode step as one call of the native library, over the caches that torch's path uses too.

Rows of several caches, lengths and adapters take it together.

Notation: R rows, V tokens of the vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from chatrlhf.engine.kv_cache import GrowingCache
from chatrlhf.engine.native_model import NativeAdapter, NativeModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.native import decoder as native

_KERNELS = ("plain", "AVX2", "AVX-512", "AMX")


@dataclass(frozen=True)
class Segment:
    """Rows ``first`` and on of a cache, the token to append to each, and the adapter of each.

    ``token_ids`` (R,); ``pads`` (R, 1) positions on the left of each row that hold no token. In a
    ``run`` they are R tokens to append to the one row of the cache, at most ``native.MAX_ROWS``.
    ``NativeDecoder.fits`` took the cache.
    """

    cache: GrowingCache
    token_ids: Tensor
    adapters: Sequence[str | None]
    pads: Tensor | None = None
    first: int = 0
    run: bool = False
    has_logits: bool = True  # of a run those after its last token; or none

    @property
    def positions(self) -> int:
        """By how many the cache grows."""
        return self.rows if self.run else 1

    @property
    def logits(self) -> int:
        """Number of its last rows whose logits are wanted."""
        return int(self.has_logits) if self.run else self.rows

    @property
    def rows(self) -> int:
        """R."""
        return int(self.token_ids.shape[0])

    def part(self, start: int, stop: int) -> Segment:
        """Some of the rows; a run is never cut."""
        return replace(
            self,
            token_ids=self.token_ids[start:stop],
            adapters=self.adapters[start:stop],
            pads=None if self.pads is None else self.pads[start:stop],
            first=self.first + start,
        )


class _Described:
    """A segment as the library reads it; ``structure`` points into this."""

    def __init__(self, segment: Segment) -> None:
        layers, length = segment.cache.layers, segment.cache.length
        for layer in layers:
            layer.make_room(length + segment.positions)
        pointers = ctypes.c_void_p * len(layers)
        first = segment.first
        self._keys = pointers(*(_address(layer.keys, first) for layer in layers))
        self._values = pointers(*(_address(layer.values, first) for layer in layers))
        self._capacity = (ctypes.c_int64 * len(layers))(*(layer.keys.shape[2] for layer in layers))
        self.structure = native.Segment(
            rows=segment.rows,
            length=length,
            run=segment.run,
            logits=segment.logits,
            keys=ctypes.addressof(self._keys),
            values=ctypes.addressof(self._values),
            capacity=ctypes.addressof(self._capacity),
        )


class NativeDecoder:
    """Steps of a model by the native library, on ``threads`` threads (any number, at any time).

    A row gets the same bits alone and in any batch, with any number of threads.
    """

    def __init__(self, model: NativeModel, bank: LoraBank, threads: int) -> None:
        library = native.library()
        if library is None:
            raise ValueError("the native library is not there; ask native.library() first")
        self.threads = threads
        self._library = library
        self._model = model
        self._bank = bank
        self._adapters: dict[str, tuple[int, NativeAdapter]] = {}

    def __str__(self) -> str:
        kind = "int8" if self._model.structure.kind == native.INT8 else "bf16"
        kernel = _KERNELS[self._library.kernel()]
        return f"native {kind} ({kernel}), threads: {self.threads}"

    def fits(self, cache: Cache) -> bool:
        """Whether rows of this cache can take a step here."""
        if not isinstance(cache, GrowingCache):
            return False
        first = cache.layers[0]
        if not first.is_initialized or first.dtype is not torch.bfloat16:
            return False
        return all(layer.keys.is_contiguous() for layer in cache.layers)

    def begin(self, cache: Cache) -> bool:
        """Make a new cache of one row ready for a run; whether this one is or was."""
        if isinstance(cache, GrowingCache) and not cache.layers[0].is_initialized:
            shape = (1, self._model.structure.kv_heads, 0, self._model.structure.head_dim)
            for layer in cache.layers:
                empty = torch.empty(shape, dtype=torch.bfloat16)
                layer.lazy_initialization(empty, empty)
        return self.fits(cache)

    def step(self, segments: Sequence[Segment], out: Tensor | None = None) -> Tensor:
        """Append one token a row to the caches; the next logits (R, V) float32, one row of a run.

        Rows beyond ``native.MAX_ROWS`` are taken by further calls of the library. Nothing has
        changed where it raises.

        Args:
            segments: the rows, in order.
            out: (R, V) float32 to write the logits to; new memory without it.
        """
        rows = sum(segment.logits for segment in segments)
        logits = torch.empty(rows, self.vocabulary) if out is None else out
        done = 0
        for some in _cut(segments):
            self._call(some, logits[done:])
            done += sum(segment.logits for segment in some)
        for segment in segments:
            length = segment.cache.length + segment.positions
            for layer in segment.cache.layers:
                layer.length = length
        return logits

    @property
    def vocabulary(self) -> int:
        """V."""
        return int(self._model.structure.vocabulary)

    def _call(self, segments: Sequence[Segment], logits: Tensor) -> None:
        token_ids = torch.cat([segment.token_ids for segment in segments]).to(torch.int64)
        rows = token_ids.shape[0]
        pads = _pads(segments)
        of_each = [name for segment in segments for name in segment.adapters]
        places = {name: place for place, name in enumerate(dict.fromkeys(filter(None, of_each)))}
        packed = [self._packed(name) for name in places]
        updates = (ctypes.c_void_p * max(len(places), 1))(
            *(ctypes.addressof(one.updates) for one in packed)
        )
        of_row = (ctypes.c_int32 * rows)(*(places[name] if name else -1 for name in of_each))
        described = [_Described(segment) for segment in segments]
        structures = (native.Segment * len(segments))(*(one.structure for one in described))
        batch = native.Batch(
            rows=rows,
            segments=len(segments),
            threads=self.threads,
            adapters=len(places),
            token_ids=token_ids.data_ptr(),
            pads=None if pads is None else pads.data_ptr(),
            adapter_of_row=ctypes.addressof(of_row) if places else None,
            updates=ctypes.addressof(updates),
            segment=ctypes.addressof(structures),
            logits=logits.data_ptr(),
        )
        if self._library.step(ctypes.byref(self._model.structure), ctypes.byref(batch)):
            raise ValueError(f"{rows} rows are more than the native library takes")

    def pack(self, name: str) -> None:
        """Pack an adapter before its first step; any thread may, while nobody changes it."""
        self._packed(name)

    def _packed(self, name: str) -> NativeAdapter:
        """An adapter as it is in the bank now: a slot is used again for other versions."""
        revision = self._bank.revision(name)
        found = self._adapters.get(name)
        if found is None or found[0] != revision:
            found = (revision, self._model.adapter(name))
            # A new dictionary each time, as another thread may read the one before. Where two
            # write at once, one packs again.
            known = {**self._adapters, name: found}
            names = self._bank.names
            self._adapters = {one: known[one] for one in known if one in names}
        return found[1]


def _cut(segments: Sequence[Segment]) -> Iterator[Sequence[Segment]]:
    """Segments in runs of at most ``native.MAX_ROWS`` rows; one may be cut."""
    run: list[Segment] = []
    free = native.MAX_ROWS
    for segment in segments:
        start = 0
        while start < segment.rows:
            stop = min(start + free, segment.rows)
            run.append(segment.part(start, stop))
            free -= stop - start
            start = stop
            if not free:
                yield run
                run, free = [], native.MAX_ROWS
    if run:
        yield run


def _pads(segments: Sequence[Segment]) -> Tensor | None:
    """(R,) int64; None where no row is padded."""
    if all(segment.pads is None for segment in segments):
        return None
    return torch.cat(
        [
            torch.zeros(segment.rows, dtype=torch.int64)
            if segment.pads is None
            else segment.pads.to(torch.int64).flatten()
            for segment in segments
        ]
    )


def _address(buffer: Tensor, row: int) -> int:
    """Where a row of (R, heads, capacity, D) begins."""
    return buffer.data_ptr() + row * buffer.stride(0) * buffer.element_size()
