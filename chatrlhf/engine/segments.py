"""A torch forward pass over rows of several caches: products of all rows, attention of each cache.

Rows of one batch then need not have one length, nothing is copied or padded, and a row gets the
bits that it gets alone: what attention rounds depends on the length.

The model's own code appends keys and values to a ``SegmentCache`` and hands what that returns to
the attention function, which knows it by its type. Models whose code does something else with it
raise, and are decoded request by request (``batch.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from chatrlhf.engine.kv_cache import GrowingCache, GrowingLayer
from chatrlhf.models.causal_attention import attend_by

IMPLEMENTATION = "sdpa_by_segments"


class Parts:
    """Keys or values of each segment: (rows, heads, T, D), of different T."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)


class _SegmentLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer of several caches."""

    def __init__(self, layers: Sequence[GrowingLayer], rows: Sequence[int]) -> None:
        super().__init__()
        self._layers, self._rows = layers, list(rows)
        self.is_sliding = layers[0].is_sliding
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the caches are there."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Parts, Parts]:
        """Append to every cache its rows; what attention may see of each."""
        del args, kwargs
        news = zip(_split(key_states, self._rows), _split(value_states, self._rows), strict=True)
        seen = [layer.update(*new) for layer, new in zip(self._layers, news, strict=True)]
        return Parts([keys for keys, _ in seen]), Parts([values for _, values in seen])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Those of a pass without a past, which needs no mask for one position."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Positions of the longest."""
        return max(layer.length for layer in self._layers)

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class SegmentCache(Cache):  # type: ignore[misc]
    """Several caches, whose rows follow each other in the batch; for one token a row."""

    def __init__(self, caches: Sequence[GrowingCache], rows: Sequence[int]) -> None:
        of_layers = zip(*(cache.layers for cache in caches), strict=True)
        super().__init__(layers=[_SegmentLayer(layers, rows) for layers in of_layers])


def attend_by_segments(model: Any) -> bool:
    """Let a model that attends by torch's kernel take such caches too; False if it does not."""
    if model.config.get_text_config()._attn_implementation == IMPLEMENTATION:
        return True
    return attend_by(model, IMPLEMENTATION, _attention)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor | Parts,
    value: Tensor | Parts,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls; output (B, 1, H, D)."""
    if not isinstance(key, Parts) or not isinstance(value, Parts):
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **rest
        )
        return found
    if attention_mask is not None:
        raise ValueError("a step over several caches takes no mask")
    queries = _split(query, [part.shape[0] for part in key.parts])
    outputs = [
        sdpa_attention_forward(module, q, k, v, None, dropout, scaling, **rest)[0]
        for q, k, v in zip(queries, key.parts, value.parts, strict=True)
    ]
    return torch.cat(outputs), None


def _split(tensor: Tensor, rows: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(torch.split_with_sizes(tensor, list(rows)))
