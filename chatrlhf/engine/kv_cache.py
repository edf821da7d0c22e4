"""Keys and values that grow in place, and can be cropped, copied and joined by rows.

B rows, T positions. transformers' own cache concatenates all keys and values in every step, and
its sliding layers forget positions, after which a prefix cannot be taken from them any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

SPARE = 128


class GrowingLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer in buffers (B, heads, capacity, head_dim).

    A sliding layer keeps all positions too, and shows attention the last ``window``.
    """

    is_croppable = True

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.is_sliding = window is not None
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers on the first update."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = _widened(key_states, 0), _widened(value_states, 0)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new positions; return what attention may see."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[-2]
        end = self.length + new
        self.make_room(end)
        self.keys.narrow(2, self.length, new).copy_(key_states)
        self.values.narrow(2, self.length, new).copy_(value_states)
        start = self._first_visible()
        self.length = end
        return self.keys.narrow(2, start, end - start), self.values.narrow(2, start, end - start)

    def make_room(self, positions: int) -> None:
        """Let the buffers have room for this many positions in all."""
        if positions > self.keys.shape[-2]:
            self.keys = _widened(self.keys, self.length, positions)
            self.values = _widened(self.values, self.length, positions)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys that the next update returns, and the position of the first."""
        start = self._first_visible()
        return self.length + query_length - start, start

    def get_seq_length(self) -> int:
        """Positions in the cache."""
        return self.length

    def get_max_length(self) -> int:
        """The window of a sliding layer, -1 for no limit."""
        return -1 if self.window is None else self.window

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last positions; the count is negative, as in transformers."""
        self.length -= abs(tokens_to_remove)

    def reset(self) -> None:
        """Forget all positions."""
        self.length = 0

    def _first_visible(self) -> int:
        return 0 if self.window is None else max(self.length - self.window + 1, 0)


class GrowingCache(Cache):  # type: ignore[misc]
    """One ``GrowingLayer`` a decoder layer."""

    def __init__(self, layers: list[GrowingLayer]) -> None:
        super().__init__(layers=layers)

    @property
    def length(self) -> int:
        """Positions in the cache, T."""
        return int(self.layers[0].length)

    @property
    def nbytes(self) -> int:
        """Memory of all buffers."""
        tensors = [t for layer in self.layers for t in (layer.keys, layer.values) if t is not None]
        return sum(tensor.nbytes for tensor in tensors)

    def select(self, rows: Tensor, length: int | None = None) -> GrowingCache:
        """A copy with these rows in this order, cropped to the first ``length`` positions.

        A row may be named several times.
        """
        end = self.length if length is None else length
        layers = []
        for layer in self.layers:
            index = rows.to(layer.device)
            keys = layer.keys[:, :, :end].index_select(0, index)
            values = layer.values[:, :, :end].index_select(0, index)
            layers.append(_filled(layer.window, keys, values))
        return GrowingCache(layers)

    def joined(self, others: Sequence[GrowingCache]) -> GrowingCache:
        """A copy with the rows of the others after its own; all have the same length."""
        end = self.length
        layers = []
        for index, layer in enumerate(self.layers):
            same = [layer, *(other.layers[index] for other in others)]
            keys = torch.cat([one.keys[:, :, :end] for one in same])
            values = torch.cat([one.values[:, :, :end] for one in same])
            layers.append(_filled(layer.window, keys, values))
        return GrowingCache(layers)


def new_cache(config: Any) -> Cache:
    """A cache for a model of this config.

    Models with other than full and sliding attention layers get transformers' own cache, which
    is not reused for a next turn.
    """
    cache = DynamicCache(config=config)
    windows: list[int | None] = []
    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            windows.append(None)
        elif type(layer) is DynamicSlidingWindowLayer:
            windows.append(layer.sliding_window)
        else:
            return cache
    return GrowingCache([GrowingLayer(window) for window in windows])


def _filled(window: int | None, keys: Tensor, values: Tensor) -> GrowingLayer:
    layer = GrowingLayer(window)
    layer.dtype, layer.device = keys.dtype, keys.device
    layer.keys, layer.values = keys, values
    layer.length = keys.shape[-2]
    layer.is_initialized = True
    return layer


def _widened(buffer: Tensor, length: int, wanted: int = 0) -> Tensor:
    """A buffer with the first positions of this one, and room to spare."""
    batch, heads, present, width = buffer.shape
    wider = buffer.new_empty((batch, heads, max(present, wanted) + SPARE, width))
    wider[:, :, :length].copy_(buffer[:, :, :length])
    return wider
