"""The engine's promises: what is refused, what streams, what faults leave untouched."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from serving import replies_of
from tiny_model import never_sampled
from waiting import wait_for

from chatrlhf.engine.engine import Engine
from chatrlhf.engine.requests import (
    ChatMessage,
    Completed,
    Delta,
    Failed,
    Finished,
    ReplyRequest,
    Sampling,
    Started,
)
from chatrlhf.errors import (
    BadInputError,
    ContextOverflowError,
    LoadingError,
    NotFoundError,
    OverloadedError,
)
from chatrlhf.settings import EngineSettings


def texts(replies):
    return [reply.text for reply in replies]


def test_a_request_gives_its_events_in_order(serve):
    serving = serve()
    events = list(serving.submit(replies=3))
    assert events[0] == Started(("v0", "v0", "v0"), events[0].prompt_tokens)
    assert events[0].prompt_tokens > 5
    assert isinstance(events[-1], Completed)
    finished = [event for event in events if isinstance(event, Finished)]
    assert sorted(event.row for event in finished) == [0, 1, 2]
    for end in finished:
        pieces = [e.text for e in events if isinstance(e, Delta) and e.row == end.row]
        assert "".join(pieces) == end.text
        assert end.text == end.text.strip()
        assert end.text == serving.base.chat_format.decode(end.token_ids).strip()
        assert len(end.logprobs) == len(end.token_ids)
        assert not serving.base.chat_format.end_token_ids.intersection(end.token_ids)
        assert (end.seed, end.version) == (7, "v0")
        assert all(logprob <= 0 for logprob in end.logprobs)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_no_reply_has_a_control_token(serve, family, temperature):
    serving = serve(family)
    control = never_sampled(serving.base)
    assert len(control) >= 2
    bias = torch.zeros(serving.base.vocab_size)
    bias[control] = 12.0  # the model would say little else
    serving.base.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
    replies = serving.ask(replies=8, temperature=temperature, max_new_tokens=40)
    said = [token for reply in replies for token in reply.token_ids]
    assert len(said) > 40
    assert not set(control).intersection(said)
    assert all(math.isfinite(logprob) for reply in replies for logprob in reply.logprobs)
    # Beside tokens that are e^12 times as likely it would be -12.
    assert max(logprob for reply in replies for logprob in reply.logprobs) > -7


def test_replies_end_at_the_limit_or_at_the_end_token(serve):
    serving = serve()
    ends = [
        reply for seed in range(6) for reply in serving.ask(replies=8, seed=seed, max_new_tokens=60)
    ]
    reasons = {reply.finish_reason for reply in ends}
    assert reasons == {"stop", "length"}
    for reply in ends:
        assert (len(reply.token_ids) == 60) == (reply.finish_reason == "length")


def test_greedy_replies_are_those_of_generate(serve):
    serving = serve("gemma3")
    prompt = serving.base.chat_format.encode_prompt([ChatMessage("user", "hello")])
    (reply,) = serving.ask("hello", temperature=0.0, max_new_tokens=20)
    serving.engine.stop()
    adapter = serving.engine._slots.pin(["v0"])[0]
    ids = torch.tensor([prompt])
    with serving.bank.using(adapter):
        expected = serving.base.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=sorted(serving.base.chat_format.end_token_ids),
        )[0, len(prompt) :].tolist()
    assert list(reply.token_ids) == expected[: len(reply.token_ids)]
    assert len(reply.token_ids) >= min(20, len(expected)) - 1


@pytest.mark.parametrize(
    ("family", "quantization"), [("llama", "fp32"), ("gemma3", "fp32"), ("gemma3", "bf16")]
)
def test_same_seed_same_reply_alone_or_in_a_batch(serve, family, quantization):
    serving = serve(family, quantization)
    alone = serving.ask(replies=1, max_new_tokens=48)
    batch = serving.ask(replies=4, max_new_tokens=48)
    streams = [serving.submit(replies=4, max_new_tokens=48), serving.submit("else", replies=2)]
    among_others = replies_of(streams[0])
    assert batch[0] == alone[0]
    assert among_others == batch
    assert len(set(texts(batch))) == 4
    assert serving.ask(replies=4, max_new_tokens=48, seed=8) != batch


def test_requests_are_served_in_turn(serve, slow_steps):
    serving = serve(active_turns=2)
    long = serving.submit(max_new_tokens=120, seed=3, temperature=0.5)
    wait_for(lambda: serving.engine.statistics()["tokens"] > 2, 20.0)
    short = replies_of(serving.submit("be short", max_new_tokens=4))
    assert len(short[0].token_ids) <= 4
    assert serving.engine.statistics()["active"] == 1
    replies_of(long)


@pytest.mark.parametrize(
    ("text", "sampling", "replies", "versions", "words"),
    [
        (" \n", {}, 1, (), "blank"),
        ("a\0b", {}, 1, (), "NUL"),
        ("hi", {"temperature": -1.0}, 1, (), "temperature"),
        ("hi", {"temperature": float("nan")}, 1, (), "temperature"),
        ("hi", {"top_p": 0.0}, 1, (), "top_p"),
        ("hi", {"top_k": -1}, 1, (), "top_k"),
        ("hi", {"max_new_tokens": 0}, 1, (), "max_new_tokens"),
        ("hi", {"top_logprobs": 21}, 1, (), "top_logprobs"),
        ("hi", {"top_logprobs": -1}, 1, (), "top_logprobs"),
        ("hi", {}, 0, (), "replies"),
        ("hi", {}, 9, (), "replies"),
        ("hi", {}, 2, ("v0",), "versions"),
        ((), {}, 1, (), "last message"),
        ((ChatMessage("assistant", "yes"),), {}, 1, (), "last message"),
    ],
)
def test_what_can_never_work_is_refused(serve, text, sampling, replies, versions, words):
    serving = serve()
    with pytest.raises(BadInputError, match=words):
        serving.submit(text, replies=replies, versions=versions, **sampling)
    assert serving.engine.statistics()["queued"] == 0


def test_a_version_that_is_not_in_memory_is_refused(serve):
    serving = serve()
    with pytest.raises(NotFoundError, match="v9"):
        serving.submit(versions=("v9",))
    with pytest.raises(NotFoundError, match="v9"):
        serving.engine.set_live("v9")


def test_a_conversation_that_does_not_fit_is_refused_with_both_numbers(serve):
    serving = serve()
    with pytest.raises(ContextOverflowError, match=r"has \d{3,} tokens.* 512"):
        serving.submit("word " * 400)


def test_a_reply_is_shortened_to_what_fits(serve):
    serving = serve()
    empty = len(serving.base.chat_format.encode_prompt([ChatMessage("user", "a")]))
    # "a" more is one token more, with this byte-level tokenizer's merges at most
    text = "q" * (512 - empty - 20)
    prompt = len(serving.base.chat_format.encode_prompt([ChatMessage("user", text)]))
    assert 16 <= 512 - prompt <= 40
    for seed in range(20):
        (reply,) = serving.ask(text, max_new_tokens=100, seed=seed)
        if reply.finish_reason == "length":
            break
    assert len(reply.token_ids) == 512 - prompt


def test_the_setting_bounds_the_context_below_the_model(load):
    base, bank = load()
    engine = Engine(base, bank, EngineSettings(), context_tokens=64)
    request = ReplyRequest((ChatMessage("user", "word " * 40),), 1, 0, Sampling())
    with pytest.raises(ContextOverflowError, match="64"):
        engine.submit(request)


def test_too_many_waiting_requests_are_refused(serve, slow_steps):
    serving = serve(active_turns=1, queued_turns=2)
    streams = [serving.submit(max_new_tokens=60, seed=3)]
    wait_for(lambda: serving.engine.statistics()["active"] == 1, 20.0)
    streams += [serving.submit(max_new_tokens=4) for _ in range(2)]
    with pytest.raises(OverloadedError, match="2 requests are waiting"):
        serving.submit()
    for stream in streams:
        assert replies_of(stream)
    assert serving.ask(max_new_tokens=4)


def test_an_engine_that_does_not_run_refuses(load):
    base, bank = load()
    engine = Engine(base, bank, EngineSettings())
    request = ReplyRequest((ChatMessage("user", "hi"),), 1, 0, Sampling())
    with pytest.raises(OverloadedError, match="not running"):
        engine.submit(request)
    with pytest.raises(LoadingError):
        _ = engine.live_version


def test_stop_strings_end_a_reply_and_are_not_shown(serve):
    serving = serve()
    (whole,) = serving.ask(seed=11, max_new_tokens=60)
    assert len(whole.text) > 20
    stop = whole.text[10:13]
    events = list(serving.submit(seed=11, max_new_tokens=60, stop=(stop, "never there")))
    (cut,) = [event for event in events if isinstance(event, Finished)]
    assert cut.text == whole.text[: whole.text.index(stop)].rstrip()
    assert "".join(event.text for event in events if isinstance(event, Delta)) == cut.text
    assert cut.finish_reason == "stop"
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_drawn_tokens_come_with_alternatives_and_are_the_reply(serve, family, temperature):
    serving = serve(family)
    asked = {"replies": 3, "seed": 4, "max_new_tokens": 40, "temperature": temperature}
    events = list(serving.submit(top_logprobs=5, stop=("zq",), **asked))
    ends = [event for event in events if isinstance(event, Finished)]
    assert [end.text for end in sorted(ends, key=lambda end: end.row)] == texts(
        serving.ask(stop=("zq",), **asked)
    )
    for end in ends:
        own = [e for e in events if isinstance(e, Delta | Finished) and e.row == end.row]
        drawn = [token for event in own for token in event.tokens]
        assert tuple(token.token_id for token in drawn) == end.token_ids
        assert tuple(token.logprob for token in drawn) == end.logprobs
        said = b"".join(token.text for token in drawn).decode(errors="replace")
        assert said.strip() == end.text
        for token in drawn:
            best = [other.logprob for other in token.alternatives]
            assert len(best) == 5
            assert best == sorted(best, reverse=True)
            assert sum(map(math.exp, best)) <= 1.0 + 1e-6
            same = [o for o in token.alternatives if o.token_id == token.token_id]
            assert [o.text for o in same] == [token.text] * len(same)
            assert [o.logprob for o in same] == pytest.approx([token.logprob] * len(same), abs=1e-5)
            if not same:
                assert token.logprob <= best[-1] + 1e-5
            if temperature == 0.0:
                assert token.alternatives[0].token_id == token.token_id
    chosen_only = list(serving.submit(top_logprobs=0, **asked))
    tokens = [t for e in chosen_only if isinstance(e, Delta | Finished) for t in e.tokens]
    assert tokens
    assert all(token.alternatives == () for token in tokens)
    assert not [t for e in serving.submit(**asked) if isinstance(e, Delta) for t in e.tokens]


def test_a_cancelled_row_ends_and_frees_its_memory(serve, slow_steps):
    serving = serve()
    stream = serving.submit("tell me " * 30, replies=4, max_new_tokens=100, temperature=0.3)
    wait_for(lambda: serving.engine.statistics()["tokens"] > 8, 20.0)
    before = serving.engine.statistics()["cache_bytes"]
    for row in (0, 2, 3):
        stream.cancel(row)
    wait_for(lambda: serving.engine.statistics()["cache_bytes"] < before / 2, 20.0)
    replies = replies_of(stream)
    reasons = [reply.finish_reason for reply in replies]
    assert [reasons[row] for row in (0, 2, 3)] == ["cancelled"] * 3
    assert reasons[1] in ("length", "stop")
    whole = serving.ask("tell me " * 30, replies=4, max_new_tokens=100, temperature=0.3)
    assert replies[1] == whole[1]
    cut = replies[0].token_ids
    assert cut == whole[0].token_ids[: len(cut)]
    assert serving.engine.statistics()["cache_bytes"] == 0


def test_a_waiting_request_can_be_cancelled(serve, slow_steps):
    serving = serve(active_turns=1)
    running = serving.submit(max_new_tokens=80, temperature=0.3)
    wait_for(lambda: serving.engine.statistics()["active"] == 1, 20.0)
    waiting = serving.submit(replies=2)
    waiting.cancel()
    assert [reply.finish_reason for reply in replies_of(waiting)] == ["cancelled"] * 2
    assert serving.engine.statistics()["active"] == 1
    running.cancel()
    assert replies_of(running)[0].finish_reason == "cancelled"


def test_an_exception_in_a_forward_fails_one_request_only(serve, slow_steps):
    serving = serve()
    good = serving.ask("good", replies=2, max_new_tokens=30)
    armed = threading.Event()

    def fault(module, args):
        # Batches of three rows are those of the bad request.
        if armed.is_set() and args[0].shape[0] == 3:
            raise RuntimeError("a cosmic ray")

    handle = serving.base.decoder.layers[1].register_forward_pre_hook(fault)
    bad = serving.submit("bad", replies=3, max_new_tokens=60, temperature=0.3)
    wait_for(lambda: serving.engine.statistics()["tokens"] > 60, 20.0)
    beside = serving.submit("good", replies=2, max_new_tokens=30)
    armed.set()
    failed = list(bad)[-1]
    assert isinstance(failed, Failed)
    assert "a cosmic ray" in failed.message
    assert replies_of(beside) == good
    handle.remove()
    assert serving.bank._active.name is None
    assert serving.bank._active.rows is None
    assert not any(module._forward_pre_hooks for module in serving.base.model.modules())
    assert serving.ask("good", replies=2, max_new_tokens=30) == good
    statistics = serving.engine.statistics()
    assert (statistics["active"], statistics["cache_bytes"]) == (0, 0)


def test_stopping_interrupts_running_replies_and_fails_waiting_ones(serve, slow_steps):
    serving = serve(active_turns=1)
    running = serving.submit(replies=2, max_new_tokens=200, temperature=0.3)
    wait_for(lambda: serving.engine.statistics()["tokens"] > 4, 20.0)
    waiting = serving.submit()
    serving.engine.stop()
    replies = replies_of(running)
    assert {reply.finish_reason for reply in replies} <= {"interrupted", "stop"}
    assert replies[0].finish_reason == "interrupted"
    assert replies[0].token_ids
    (failed,) = list(waiting)
    assert isinstance(failed, Failed)
    assert failed.http_status == 503
    with pytest.raises(OverloadedError):
        serving.submit()


def test_next_event_returns_nothing_in_time_and_after_the_end(serve, slow_steps):
    serving = serve()
    stream = serving.submit(max_new_tokens=3)
    while not isinstance(stream.next_event(5.0), Completed):
        pass
    assert stream.next_event(5.0) is None
    assert list(stream) == []


def test_statistics_tell_speed_and_versions(serve):
    serving = serve()
    serving.ask(replies=2, max_new_tokens=20)
    statistics = serving.engine.statistics()
    assert statistics["tokens"] >= 4
    assert statistics["tokens_per_second"] > 0
    assert statistics["live_version"] == "v0"
    assert statistics["resident_versions"] == ["v0"]
    assert (statistics["active"], statistics["queued"]) == (0, 0)
