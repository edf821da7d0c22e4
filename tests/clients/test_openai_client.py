"""OpenAI's own Python client against a real server."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

HELLO = [{"role": "user", "content": "Hello, where is the cat?"}]
PLAIN = {"model": "chatrlhf", "messages": HELLO, "max_tokens": 24, "temperature": 1.0, "top_p": 1.0}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def texts(answer):
    return [choice.message.content for choice in answer.choices]


def test_models_are_listed_and_looked_up(client):
    assert [model.id for model in client.models.list()] == ["chatrlhf", "v0", "v1"]
    assert client.models.retrieve("v1").owned_by == "chatrlhf"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-4o")
    assert refused.value.code == "model_not_found"


def test_a_completion(client):
    answer = client.chat.completions.create(**PLAIN, n=3, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts(answer))) == 3
    assert {choice.message.role for choice in answer.choices} == {"assistant"}
    assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 72
    assert answer.system_fingerprint.startswith("fp_v0_")


def test_a_stream_has_the_text_of_the_whole_answer_and_usage(client):
    whole = client.chat.completions.create(**PLAIN, n=2, seed=6)
    stream = client.chat.completions.create(
        **PLAIN, n=2, seed=6, stream=True, stream_options={"include_usage": True}
    )
    said, ends, usage = ["", ""], [None, None], None
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk"
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            assert ends[choice.index] is None
            ends[choice.index] = choice.finish_reason
        usage = chunk.usage or usage
    assert said == texts(whole)
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_max_tokens_stop_and_greedy(client):
    whole = client.chat.completions.create(**PLAIN, seed=9).choices[0].message.content
    assert len(whole) > 12
    stop = whole[6:8]
    for wanted in (stop, [stop, "never there"]):
        cut = client.chat.completions.create(**PLAIN, seed=9, stop=wanted).choices[0]
        assert cut.message.content == whole[: whole.index(stop)].rstrip()
        assert cut.finish_reason == "stop"
    three = {name: value for name, value in PLAIN.items() if name != "max_tokens"}
    for limit in ({"max_completion_tokens": 3}, {"max_tokens": 99, "max_completion_tokens": 3}):
        short = client.chat.completions.create(**three, **limit, seed=9)
        assert short.choices[0].finish_reason == "length"
        assert short.usage.completion_tokens == 3
    greedy = {**PLAIN, "temperature": 0.0}
    both = [client.chat.completions.create(**greedy, seed=seed) for seed in (1, 2)]
    assert texts(both[0]) == texts(both[1])


@pytest.mark.parametrize("streamed", [False, True])
def test_logprobs_are_of_the_tokens_of_the_reply(client, streamed):
    wanted = {**PLAIN, "seed": 12, "logprobs": True, "top_logprobs": 4}
    if streamed:
        tokens, text, count = [], "", 0
        options = {"stream": True, "stream_options": {"include_usage": True}}
        for chunk in client.chat.completions.create(**wanted, **options):
            count = chunk.usage.completion_tokens if chunk.usage else count
            for choice in chunk.choices:
                text += choice.delta.content or ""
                tokens += choice.logprobs.content if choice.logprobs else []
    else:
        answer = client.chat.completions.create(**wanted)
        tokens, text = answer.choices[0].logprobs.content, texts(answer)[0]
        count = answer.usage.completion_tokens
    assert len(tokens) == count > 3
    assert (
        bytes(b for token in tokens for b in token.bytes).decode(errors="replace").strip() == text
    )
    for token in tokens:
        assert token.logprob <= 0.0
        assert len(token.top_logprobs) == 4
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.000001
        same = [other.logprob for other in token.top_logprobs if other.bytes == token.bytes]
        assert same == pytest.approx([token.logprob] * len(same), abs=1e-5)
    without = client.chat.completions.create(**PLAIN, seed=12)
    assert without.choices[0].logprobs is None
    assert texts(without) == [text]


def test_a_version_is_a_model_and_answers_otherwise(client):
    live = client.chat.completions.create(**PLAIN, seed=3)
    named = {name: client.chat.completions.create(**{**PLAIN, "model": name}, seed=3)
             for name in ("v0", "v1")}  # fmt: skip
    assert texts(named["v0"]) == texts(live)
    assert texts(named["v1"]) != texts(live)
    assert named["v0"].system_fingerprint == live.system_fingerprint
    assert named["v1"].system_fingerprint.startswith("fp_v1_")


def test_the_same_seed_gives_the_same_reply_alone_beside_others_and_in_a_batch(client):
    def ask(**more):
        return client.chat.completions.create(**{**PLAIN, "max_tokens": 48, **more})

    alone = {
        (version, seed): texts(ask(model=version, seed=seed))[0]
        for version in ("v0", "v1")
        for seed in (21, 22, 23)
    }
    assert len(set(alone.values())) == 6
    with ThreadPoolExecutor(9) as pool:
        noise = [pool.submit(ask, n=2, seed=100 + at, model=f"v{at % 2}") for at in range(3)]
        beside = {
            key: pool.submit(ask, model=key[0], seed=key[1], n=1 + key[1] % 3) for key in alone
        }
        for key, future in beside.items():
            assert texts(future.result())[0] == alone[key], key
        for future in noise:
            assert len(texts(future.result())) == 2


def test_a_seed_holds_over_a_conversation_with_a_cached_beginning(client):
    long = [{"role": "user", "content": "When 12 cats sat, 34 dogs ran? " * 6}]
    first = texts(client.chat.completions.create(**{**PLAIN, "messages": long}, seed=4))
    again = texts(client.chat.completions.create(**{**PLAIN, "messages": long}, seed=4))
    assert first == again


@pytest.mark.parametrize(
    ("wrong", "error", "code", "param"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", None),
        ({"n": 99}, openai.BadRequestError, "invalid_value", "n"),
        ({"temperature": -1.0}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"frequency_penalty": 1.0}, openai.BadRequestError, "unsupported_parameter", None),
        ({"extra_body": {"max_token": 3}}, openai.BadRequestError, "unknown_parameter", None),
        ({"top_logprobs": 2}, openai.BadRequestError, "invalid_value", "top_logprobs"),
        (
            {"messages": [{"role": "user", "content": "word " * 400}]},
            openai.BadRequestError,
            "context_length_exceeded",
            None,
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_those_that_the_client_knows(client, wrong, error, code, param, stream):
    with pytest.raises(error) as refused:
        client.chat.completions.create(**{**PLAIN, **wrong}, stream=stream)
    assert refused.value.code == code
    if param is not None:
        assert refused.value.param == param
    assert refused.value.body["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_gives_up_frees_the_engine(client, server, stream):
    """The only slot for the other requests is free again long before the reply would be done."""
    wait = {**PLAIN, "max_tokens": 150, "n": 8, "temperature": 0.0}
    started = time.monotonic()
    client.chat.completions.create(**wait)
    whole = time.monotonic() - started
    stops = []

    def give_up():
        try:
            if stream:
                with client.chat.completions.create(**wait, stream=True) as chunks:
                    next(iter(chunks))
            else:
                client.with_options(timeout=whole / 20).chat.completions.create(**wait)
        except openai.APITimeoutError:
            pass
        stops.append(time.monotonic())

    before = active(server)
    threads = [threading.Thread(target=give_up) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(stops) == 12
    server.wait_for(lambda: active(server) == before, seconds=max(2.0, whole))
    assert client.chat.completions.create(**PLAIN, seed=1).choices


def active(server):
    """Requests that the engine works on, or that wait."""
    engine = server.get("/api/health")["engine"]
    return engine["active"] + engine["queued"]
