"""What goes wrong ends one request, clearly, and leaves nothing behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from serving import replies_of

from chatrlhf.engine.drawing import Drawer
from chatrlhf.engine.requests import Failed
from chatrlhf.errors import ContextOverflowError, OverloadedError

CROWD = 3000


def is_clean(serving):
    """Nothing is held for requests any more."""
    statistics = serving.engine.statistics()
    held = statistics["active"], statistics["queued"], statistics["cache_bytes"]
    return held == (0, 0, 0) and not serving.engine._slots._pins


def test_thousands_of_requests_at_once_are_answered_or_shed(serve):
    serving = serve(active_turns=2, queued_turns=50)
    expected = serving.ask(max_new_tokens=2)

    def submit(_):
        try:
            return serving.submit(max_new_tokens=2)
        except OverloadedError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(submit, range(CROWD)))
    shed = [answer for answer in streams if isinstance(answer, str)]
    taken = [answer for answer in streams if not isinstance(answer, str)]
    assert 50 <= len(taken) < CROWD
    assert all("requests are waiting" in words for words in shed)
    assert all(replies_of(stream) == expected for stream in taken)
    assert is_clean(serving)
    assert serving.ask(max_new_tokens=2) == expected


def test_thousands_of_waiting_requests_leave_at_once_when_they_are_cut(serve, monkeypatch):
    serving = serve(active_turns=1, queued_turns=CROWD + 1)
    expected = serving.ask(max_new_tokens=40)
    go, real = threading.Event(), Drawer.draw

    def held(*arguments):
        go.wait(60.0)
        return real(*arguments)

    monkeypatch.setattr(Drawer, "draw", held)
    running = serving.submit(max_new_tokens=40)
    waiting = [serving.submit(replies=4, max_new_tokens=400) for _ in range(CROWD)]
    for stream in reversed(waiting):
        stream.cancel()
    go.set()
    assert replies_of(running) == expected
    for stream in waiting:
        replies = replies_of(stream)
        assert [reply.finish_reason for reply in replies] == ["cancelled"] * 4
        assert not any(reply.token_ids for reply in replies)
    assert is_clean(serving)


@pytest.mark.parametrize(
    ("fault", "code", "status", "words"),
    [
        (torch.OutOfMemoryError("no"), "out_of_memory", 503, "fewer replies"),
        (MemoryError(), "out_of_memory", 503, "fewer replies"),
        (ValueError("odd"), "model", 500, "odd"),
    ],
)
@pytest.mark.parametrize("at_step", [0, 3])  # in the prompt, and among replies
def test_a_fault_of_the_model_has_words_for_people(serve, fault, code, status, words, at_step):
    serving = serve()
    expected = serving.ask(replies=2)
    seen = []

    def break_down(_module, _args):
        seen.append(None)
        if len(seen) > at_step:
            raise fault

    handle = serving.base.decoder.register_forward_pre_hook(break_down)
    *_, failed = list(serving.submit(replies=2))
    handle.remove()
    assert isinstance(failed, Failed)
    assert (failed.code, failed.http_status) == (code, status)
    assert words in failed.message
    assert is_clean(serving)
    assert serving.ask(replies=2) == expected


def test_values_that_are_not_numbers_end_the_request(serve):
    serving = serve()
    expected = serving.ask()

    def spoil(_module, _args, output):
        output.last_hidden_state[:] = float("nan")

    handle = serving.base.decoder.register_forward_hook(spoil)
    *_, failed = list(serving.submit())
    handle.remove()
    assert isinstance(failed, Failed)
    assert "not numbers" in failed.message
    assert is_clean(serving)
    assert serving.ask() == expected


def test_a_conversation_that_can_never_fit_is_counted_and_never_queued(serve):
    serving = serve()
    for replies in (1, 8):
        with pytest.raises(ContextOverflowError):
            serving.submit("word " * 5000, replies=replies)
    assert is_clean(serving)
    assert serving.engine.statistics()["tokens"] == 0
