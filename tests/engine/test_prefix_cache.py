"""Which prefixes are kept and reused."""

from __future__ import annotations

import pytest
import torch

from chatrlhf.engine.kv_cache import GrowingCache, GrowingLayer
from chatrlhf.engine.prefix_cache import CHUNK, PrefixCache


def cache_of(length):
    """Keys that are their own positions."""
    layer = GrowingLayer(None)
    positions = torch.arange(length, dtype=torch.float32)[None, None, :, None]
    layer.update(positions, -positions)
    return GrowingCache([layer])


def prompt(chunks, first=0, extra=5):
    return [first, *range(1, CHUNK * chunks + extra)]


def test_whole_chunks_of_the_common_prefix_are_reused():
    prefixes = PrefixCache(10_000)
    prefixes.put("v0", prompt(3), cache_of(3 * CHUNK + 5))
    assert prefixes.tokens == 3 * CHUNK
    other = [*prompt(3)[: 2 * CHUNK + 17], -1, *range(500)]
    taken = prefixes.take("v0", other)
    assert taken.length == 2 * CHUNK
    keys = taken.layers[0].keys[0, 0, : taken.length, 0]
    assert torch.equal(keys, torch.arange(2 * CHUNK, dtype=torch.float32))


def test_what_is_taken_is_a_copy():
    prefixes = PrefixCache(10_000)
    prefixes.put("v0", prompt(1), cache_of(CHUNK + 5))
    prefixes.take("v0", prompt(1)).layers[0].keys.zero_()
    assert prefixes.take("v0", prompt(1)).layers[0].keys.sum() > 0


def test_one_token_at_least_is_left_to_run():
    prefixes = PrefixCache(10_000)
    exact = prompt(2)[: 2 * CHUNK]
    prefixes.put("v0", exact, cache_of(2 * CHUNK))
    assert prefixes.take("v0", exact).length == CHUNK


def test_other_versions_and_other_beginnings_hit_nothing():
    prefixes = PrefixCache(10_000)
    prefixes.put("v0", prompt(2), cache_of(2 * CHUNK + 5))
    assert prefixes.take("v1", prompt(2)) is None
    assert prefixes.take("v0", prompt(2, first=9)) is None
    assert prefixes.hits == 0


def test_a_longer_turn_of_the_same_conversation_replaces_the_shorter():
    prefixes = PrefixCache(10_000)
    prefixes.put("v0", prompt(1), cache_of(CHUNK + 5))
    prefixes.put("v0", prompt(3), cache_of(3 * CHUNK + 5))
    assert prefixes.tokens == 3 * CHUNK


def test_the_least_recently_used_prefixes_leave():
    prefixes = PrefixCache(2 * CHUNK)
    for first in (0, 7):
        prefixes.put("v0", prompt(1, first), cache_of(CHUNK + 5))
    assert prefixes.take("v0", prompt(1, 0)) is not None
    prefixes.put("v0", prompt(1, 8), cache_of(CHUNK + 5))
    assert prefixes.tokens == 2 * CHUNK
    assert prefixes.take("v0", prompt(1, 7)) is None
    assert prefixes.take("v0", prompt(1, 0)) is not None


@pytest.mark.parametrize(("budget", "chunks"), [(0, 1), (CHUNK, 2), (1000, 0)])
def test_what_does_not_fit_or_has_no_whole_chunk_is_not_kept(budget, chunks):
    prefixes = PrefixCache(budget)
    prefixes.put("v0", prompt(chunks), cache_of(chunks * CHUNK + 5))
    assert prefixes.tokens == 0


def test_a_dropped_version_leaves_nothing():
    prefixes = PrefixCache(10_000)
    prefixes.put("v0", prompt(1), cache_of(CHUNK + 5))
    prefixes.put("v1", prompt(1), cache_of(CHUNK + 5))
    prefixes.drop("v0")
    assert prefixes.tokens == CHUNK
    assert prefixes.take("v0", prompt(1)) is None
    assert prefixes.take("v1", prompt(1)) is not None
