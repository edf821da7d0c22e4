"""The OpenAI-compatible API: shapes as that API's reference gives them."""

from __future__ import annotations

import json

import pytest

from chatrlhf.engine.requests import Failed
from chatrlhf.errors import ContextOverflowError, OverloadedError
from storage import versions

URL = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def with_hello(body: dict) -> dict:
    return {"messages": HELLO, **body}


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
        "refusal": None,
    }
    assert answer["choices"][1]["logprobs"] is None
    assert answer["system_fingerprint"].startswith("fp_v0_")
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
            "top_k": 3,
            "logprobs": True,
            "top_logprobs": 2,
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
    assert request.sampling.top_k == 3
    assert request.sampling.top_logprobs == 2
    assert request.versions == ()


def test_a_stream_has_roles_text_ends_and_done(client):
    body = {"messages": HELLO, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    answer = client.post(URL, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = chunks_of(answer)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(chunk["system_fingerprint"].startswith("fp_v0_") for chunk in chunks)
    usage = chunks.pop()
    assert all(chunk["usage"] is None for chunk in chunks)
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
    for _ in range(2):
        answer = client.post(URL, json={"model": "v1", "messages": HELLO})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
    assert versions.get_version(app.db, "v1").state == "quarantined"
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["chatrlhf", "v0"]


def test_nothing_is_stored(client):
    client.post(URL, json={"messages": HELLO})
    assert client.get("/api/conversations").json() == []


def test_a_failure_is_an_error_with_the_engines_status(client, engine):
    engine.fail_before_start = Failed("overloaded", "No memory is free.", 503)
    answer = client.post(URL, json={"messages": HELLO})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    expected = {
        "error": {
            "message": "No memory is free.",
            "type": "server_error",
            "param": None,
            "code": "overloaded",
        }
    }
    assert answer.json() == expected
    streamed = client.post(URL, json={"messages": HELLO, "stream": True})
    last = streamed.text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: ")) == expected


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("messages", {}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "Hello"}),
        ("messages.0.role", {"messages": [{"role": "tool", "content": "a"}]}),
        ("messages.0.content", {"messages": [{"role": "user"}]}),
        ("messages.0.content", {"messages": [{"role": "user", "content": "a\x00"}]}),
        ("messages", {"messages": [{"role": "user", "content": " "}]}),
        (
            "messages.0.content",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        ),
        ("messages", {"messages": [{"role": "assistant", "content": "a"}]}),
        (
            "messages.1.tool_calls",
            {
                "messages": [
                    *HELLO,
                    {"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]},
                    *HELLO,
                ]
            },
        ),
        ("n", {"n": 0}),
        ("n", {"n": 9}),
        ("temperature", {"temperature": -1}),
        ("temperature", {"temperature": "1"}),
        ("top_p", {"top_p": 2}),
        ("top_k", {"top_k": -1}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_completion_tokens", {"max_completion_tokens": 0}),
        ("stop", {"stop": ""}),
        ("stop", {"stop": [""]}),
        ("stop", {"stop": ["a"] * 17}),
        ("seed", {"seed": 2**63}),
        ("stream", {"stream": "yes"}),
        ("logprobs", {"logprobs": 2}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("top_logprobs", {"logprobs": False, "top_logprobs": 2}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("tool_choice", {"tool_choice": "required"}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("frequency_penalty", {"frequency_penalty": 0.5}),
        ("presence_penalty", {"presence_penalty": True}),
        ("logit_bias", {"logit_bias": {"50256": -100}}),
        ("modalities", {"modalities": ["text", "audio"]}),
        ("max_token", {"max_token": 5}),
    ],
)
def test_requests_that_cannot_work_are_refused(client, engine, param, body):
    answer = client.post(URL, json=body if not body or "messages" in body else with_hello(body))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)
    assert error["message"]
    assert engine.requests == []


def test_the_code_says_whether_a_parameter_is_unknown_or_unsupported(client):
    for name, value, code in (
        ("max_token", 5, "unknown_parameter"),
        ("frequency_penalty", 1, "unsupported_parameter"),
        ("n", 9, "invalid_value"),
    ):
        error = client.post(URL, json=with_hello({name: value})).json()["error"]
        assert error["code"] == code
        assert name in error["message"]


def test_what_changes_nothing_is_taken(client, engine):
    answer = client.post(
        URL,
        json=with_hello(
            {
                **dict.fromkeys(
                    ("n", "stop", "seed", "temperature", "top_p", "max_tokens", "stream"), None
                ),
                **{"logprobs": None, "top_logprobs": None, "stream_options": None, "tools": None},
                **{"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}},
                **{"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}},
                **{"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
                **{"reasoning_effort": "low", "parallel_tool_calls": True, "modalities": ["text"]},
                "max_completion_tokens": 1_000_000,
            }
        ),
    )
    assert answer.status_code == 200
    assert engine.requests[-1].sampling.max_new_tokens == 1_000_000


def test_a_message_that_came_from_an_answer_can_be_sent_back(client, engine):
    said = client.post(URL, json=with_hello({})).json()["choices"][0]["message"]
    again = {**said, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    answer = client.post(URL, json={"messages": [*HELLO, again, *HELLO]})
    assert answer.status_code == 200
    assert [m.role for m in engine.requests[-1].messages] == ["user", "assistant", "user"]


def test_one_model_can_be_looked_up(client):
    assert client.get("/v1/models/chatrlhf").json()["id"] == "chatrlhf"
    assert client.get("/v1/models/v1").json() == client.get("/v1/models").json()["data"][2]
    answer = client.get("/v1/models/gpt-4")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_unknown_paths_methods_and_refusals_of_the_guard_have_the_shape(client):
    for answer, status in (
        (client.get("/v1/nothing"), 404),
        (client.delete(URL), 405),
        (client.post(URL, content=b"{", headers={"Content-Type": "application/json"}), 400),
        (client.post(URL, content=b"a" * 1_000_001), 413),
        (client.post(URL, json={}, headers={"Origin": "https://example.org"}), 403),
        (client.get("/v1/models", headers={"Host": "example.org"}), 400),
    ):
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert "retry-after" not in answer.headers


def test_a_full_queue_says_when_to_come_again(client, engine):
    engine.refuse = OverloadedError("64 requests are waiting already.")
    answer = client.post(URL, json=with_hello({"stream": True}))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    engine.refuse = ContextOverflowError("It is too long.")
    answer = client.post(URL, json=with_hello({}))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("model", ["gpt-4", "v99", "", "../v0"])
def test_an_unknown_model_is_not_found(client, model):
    answer = client.post(URL, json={"model": model, "messages": HELLO})
    assert answer.status_code == 404
