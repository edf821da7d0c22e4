"""The OpenAI-compatible API: shapes as that API's reference gives them."""

from __future__ import annotations

import json

import pytest

from chatrlhf.engine.requests import Failed
from storage import versions

URL = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def chunks_of(answer) -> list[dict]:
    lines = [line for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_models_are_the_live_one_and_every_version(client):
    answer = client.get("/v1/models").json()
    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == ["chatrlhf", "v0", "v1"]
    assert {model["object"] for model in answer["data"]} == {"model"}
    assert all(model["created"] > 1_600_000_000 for model in answer["data"])


def test_a_completion_has_choices_and_usage(client):
    body = {"model": "chatrlhf", "messages": HELLO, "n": 2, "seed": 3}
    answer = client.post(URL, json=body).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "chatrlhf"
    assert answer["id"].startswith("chatcmpl-")
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["choices"][1]["message"] == {
        "role": "assistant",
        "content": "word0 word1 word2 1",
    }
    assert answer["choices"][1]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15}


def test_options_reach_the_engine(client, engine):
    client.post(
        URL,
        json={
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hel"}] * 2},
            ],
            "temperature": 0,
            "top_p": 0.3,
            "max_tokens": 5,
            "stop": ["\n", "END"],
            "seed": -1,
            "user": "somebody",
        },
    )
    request = engine.requests[-1]
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "Be brief."),
        ("user", "HelHel"),
    ]
    assert request.replies == 1
    assert request.seed == 2**63 - 1
    assert request.sampling.temperature == 0.0
    assert request.sampling.top_p == 0.3
    assert request.sampling.max_new_tokens == 5
    assert request.sampling.stop == ("\n", "END")
    assert request.versions == ()


def test_a_stream_has_roles_text_ends_and_done(client):
    body = {"messages": HELLO, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    answer = client.post(URL, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = chunks_of(answer)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    usage = chunks.pop()
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 15
    for index in (0, 1):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(choice["delta"].get("content", "") for choice in own)
        assert text == f"word0 word1 word2 {index}"
        assert [choice["finish_reason"] for choice in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == "stop"


def test_a_version_is_loaded_when_it_is_asked_for(client, engine):
    assert "v1" not in engine.resident
    answer = client.post(URL, json={"model": "v1", "messages": HELLO, "n": 2})
    assert answer.json()["model"] == "v1"
    assert engine.requests[-1].versions == ("v1", "v1")
    assert client.get("/api/health").json()["live_version"] == "v0"


def test_a_broken_version_is_refused_and_quarantined(client, engine, app):
    engine.broken.add("v1")
    for status in (409, 409):
        answer = client.post(URL, json={"model": "v1", "messages": HELLO})
        assert answer.status_code == status
    assert versions.get_version(app.db, "v1").state == "quarantined"
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["chatrlhf", "v0"]


def test_nothing_is_stored(client):
    client.post(URL, json={"messages": HELLO})
    assert client.get("/api/conversations").json() == []


def test_a_failure_is_an_error_with_the_engines_status(client, engine):
    engine.fail_before_start = Failed("overloaded", "No memory is free.", 503)
    answer = client.post(URL, json={"messages": HELLO})
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "No memory is free."
    streamed = client.post(URL, json={"messages": HELLO, "stream": True})
    assert "No memory is free." in streamed.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "Hello"},
        {"messages": [{"role": "tool", "content": "a"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "a\x00"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": HELLO, "n": 0},
        {"messages": HELLO, "n": 9},
        {"messages": HELLO, "temperature": -1},
        {"messages": HELLO, "temperature": "1"},
        {"messages": HELLO, "top_p": 2},
        {"messages": HELLO, "max_tokens": 0},
        {"messages": HELLO, "stop": [""]},
        {"messages": HELLO, "stop": ["a"] * 17},
        {"messages": HELLO, "seed": 2**63},
        {"messages": HELLO, "stream": "yes"},
    ],
)
def test_requests_that_cannot_work_are_refused(client, engine, body):
    answer = client.post(URL, json=body)
    assert answer.status_code == 422
    assert set(answer.json()["error"]) >= {"code", "message"}
    assert engine.requests == []


@pytest.mark.parametrize("model", ["gpt-4", "v99", "", "../v0"])
def test_an_unknown_model_is_not_found(client, model):
    answer = client.post(URL, json={"model": model, "messages": HELLO})
    assert answer.status_code == 404
