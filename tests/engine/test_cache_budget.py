"""Memory for keys and values: what a request needs, who waits, and who is refused at once."""

from __future__ import annotations

import time

import pytest
from serving import replies_of
from waiting import wait_for

from chatrlhf.engine import engine as engine_module
from chatrlhf.engine.cache_budget import CacheBudget, bytes_per_token, cache_budget
from chatrlhf.engine.kv_cache import SPARE
from chatrlhf.engine.requests import Sampling
from chatrlhf.engine.streams import ReplyStream
from chatrlhf.engine.waiting import MOST_OVERTAKEN, Waiting
from chatrlhf.engine.work import Work
from chatrlhf.errors import BadInputError, ContextOverflowError

LONG = "When 12 cats sat, 34 dogs ran? " * 7


def never_ending(serving):
    """Let replies have all the tokens that they may."""
    serving.base.chat_format.end_token_ids = frozenset()


def test_bytes_of_a_token_are_those_of_its_keys_and_values(load):
    base, _ = load("llama")
    config = base.model.config
    one_side = config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert bytes_per_token(base) == 2 * one_side * 4
    assert one_side == 2 * 2 * 16


def test_what_a_request_needs_by_hand():
    budget = CacheBudget(total=10**9, per_token=10)
    assert budget.needed(100, 50, rows=4, versions=1) == 10 * 4 * (100 + 50 + SPARE)
    # Two versions of a long prompt: each alone, both together, and a copy for each row.
    assert budget.needed(900, 1, rows=2, versions=2) == 10 * (2 * (900 + SPARE) + 1800 + 1800)
    assert budget.needed(100, 50, rows=0, versions=0) == 0
    with pytest.raises(ContextOverflowError, match=r"4 replies of up to 50 .* 11 kB .* 5 kB"):
        CacheBudget(total=5000, per_token=10).check(100, 50, 4, 1)


def test_the_default_is_half_of_what_is_free_beside_the_prefixes(load, monkeypatch):
    base, _ = load("llama")
    memory = type("Memory", (), {"available": 8 * 10**9})()
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    per_token = bytes_per_token(base)
    assert cache_budget(base, 0, 1000).total == (8 * 10**9 - 1000 * per_token) // 2
    assert cache_budget(base, 300, 1000).total == 300 * 10**6
    memory.available = 0
    assert cache_budget(base, 0, 1000).total == 64 << 20


def test_the_copy_of_the_weights_in_int8_is_not_free_for_replies(serve, monkeypatch):
    memory = type("Memory", (), {"available": 8 * 10**9})()
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)

    def copying(*_arguments):
        memory.available = 3 * 10**9

    monkeypatch.setattr(engine_module, "native_decoder", copying)
    serving = serve(prefix_cache_tokens=0)
    assert serving.engine.statistics()["cache_budget_bytes"] == 3 * 10**9 // 2


def test_a_request_that_can_never_fit_is_refused_at_once_and_a_smaller_one_served(serve):
    serving = serve(cache_megabytes=1)
    with pytest.raises(ContextOverflowError, match="the server has 1 MB for replies"):
        serving.submit(LONG, replies=8, max_new_tokens=100)
    statistics = serving.engine.statistics()
    assert (statistics["queued"], statistics["active"]) == (0, 0)
    assert not serving.engine._slots._pins
    assert statistics["cache_budget_bytes"] == 10**6
    assert serving.ask(LONG, replies=1, max_new_tokens=20)
    assert issubclass(ContextOverflowError, BadInputError)


def test_requests_wait_for_memory_and_what_is_taken_stays_within_the_budget(serve, slow_steps):
    serving = serve(cache_megabytes=1)
    never_ending(serving)
    ask = {"replies": 4, "max_new_tokens": 40, "temperature": 0.5}
    expected = [serving.ask(LONG, seed=seed, **ask) for seed in range(5)]
    streams = [serving.submit(LONG, seed=seed, **ask) for seed in range(5)]
    most_active = most_bytes = 0
    while serving.engine.statistics()["active"] or serving.engine.statistics()["queued"]:
        statistics = serving.engine.statistics()
        most_active = max(most_active, statistics["active"])
        most_bytes = max(most_bytes, statistics["cache_bytes"])
        time.sleep(0.001)
    assert [replies_of(stream) for stream in streams] == expected
    assert most_active == 1  # each needs more than half of it
    assert 0 < most_bytes <= 10**6


def test_rows_that_are_cancelled_make_room_at_once(serve, slow_steps):
    serving = serve(cache_megabytes=1)
    never_ending(serving)
    wide = serving.submit(LONG, replies=3, max_new_tokens=200, temperature=0.2)
    wait_for(lambda: serving.engine.statistics()["tokens"] > 3, 20.0)
    waiting = serving.submit("hello " * 20, replies=3, max_new_tokens=60)
    time.sleep(0.05)
    assert serving.engine.statistics()["queued"] == 1
    for row in (0, 1):
        wide.cancel(row)
    wait_for(lambda: serving.engine.statistics()["active"] == 2, 20.0)
    wide.cancel()
    assert replies_of(waiting)


def test_a_small_request_passes_a_large_one_that_does_not_fit_yet(serve, slow_steps):
    serving = serve(cache_megabytes=1)
    never_ending(serving)
    running = serving.submit(LONG, replies=3, max_new_tokens=120, temperature=0.2)
    wait_for(lambda: serving.engine.statistics()["tokens"] > 3, 20.0)
    large = serving.submit(LONG, replies=3, max_new_tokens=40)
    assert replies_of(serving.submit("hi", max_new_tokens=4))
    assert serving.engine.statistics()["queued"] == 1
    running.cancel()
    assert replies_of(large)


def work_of(size, stream=None):
    stream = stream or ReplyStream(1, lambda: None)
    return Work((1,), ("v0",), ("s0",), Sampling(), 1, 0, stream, size)


def test_a_large_request_is_passed_a_bounded_number_of_times_and_then_is_next():
    waiting, free = Waiting(), 10
    large = work_of(20)
    waiting.add(large)
    small = [work_of(1) for _ in range(MOST_OVERTAKEN + 3)]
    for work in small:
        waiting.add(work)
    taken = [waiting.take_next(lambda work: work.cache_bytes <= free) for _ in range(12)]
    assert taken[:MOST_OVERTAKEN] == small[:MOST_OVERTAKEN]
    assert taken[MOST_OVERTAKEN:] == [None] * (12 - MOST_OVERTAKEN)
    free = 20
    assert waiting.take_next(lambda work: work.cache_bytes <= free) is large
    assert waiting.take_next(lambda work: work.cache_bytes <= free) is small[MOST_OVERTAKEN]


def test_requests_that_fit_are_served_in_the_order_in_which_they_came():
    waiting = Waiting()
    works = [work_of(1) for _ in range(4)]
    for work in works:
        waiting.add(work)
    works[1].stream.cancel()
    assert waiting.take_cancelled() == [works[1]]
    taken = [waiting.take_next(lambda _: True) for _ in range(4)]
    assert taken == [works[0], works[2], works[3], None]
    assert len(waiting) == 0
