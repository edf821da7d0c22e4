"""Clients that go away in mid-stream, over real sockets."""

from __future__ import annotations

import httpx
import pytest
from listening import Listening
from waiting import wait_for

from ui.server import create_server


@pytest.fixture
def http(app):
    """A client of the app over TCP."""
    listening = Listening(create_server(app, with_page=False))
    with httpx.Client(base_url=listening.url, timeout=30) as client:
        yield client
    listening.stop()


def read_until(lines, words: str) -> None:
    for line in lines:
        if words in line:
            return
    raise AssertionError(f"{words} never came")


def test_a_turn_is_finished_and_stored_when_its_page_goes_away(http, engine):
    engine.go.clear()
    made = http.post("/api/conversations", json={}).json()["id"]
    url = f"/api/conversations/{made}"
    events = {"Accept": "text/event-stream"}
    with http.stream("POST", f"{url}/turns", json={"text": "Hello"}, headers=events) as answer:
        read_until(answer.iter_lines(), "word0")
    engine.go.set()

    def states() -> set[str]:
        return {reply["state"] for reply in http.get(url).json()["turns"][0]["replies"]}

    wait_for(lambda: states() == {"complete"}, 30.0)
    assert not engine.streams[0].all_cancelled.is_set()


def test_several_pages_can_follow_one_turn(http, engine):
    engine.go.clear()
    made = http.post("/api/conversations", json={}).json()["id"]
    url = f"/api/conversations/{made}"
    events = {"Accept": "text/event-stream"}
    with http.stream("POST", f"{url}/turns", json={"text": "Hello"}, headers=events) as first:
        of_first = first.iter_lines()
        read_until(of_first, "word0")
        turn = http.get(url).json()["turns"][0]["turn_id"]
        with http.stream("GET", f"/api/turns/{turn}/events") as second:
            of_second = second.iter_lines()
            read_until(of_second, "word0")
            engine.go.set()
            read_until(of_second, "turn.done")
        read_until(of_first, "turn.done")


def test_a_completion_is_cut_when_its_client_goes_away(http, engine):
    engine.go.clear()
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        read_until(answer.iter_lines(), "word0")
    wait_for(engine.streams[0].all_cancelled.is_set, 30.0)


def test_an_answer_nobody_waits_for_any_more_is_cut(http, engine):
    engine.go.clear()
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=0.5)
    wait_for(lambda: engine.streams, 30.0)
    wait_for(engine.streams[0].all_cancelled.is_set, 30.0)
