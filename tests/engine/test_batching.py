"""Several requests in one decode step: each gets what it gets alone, and fails alone."""

from __future__ import annotations

import threading

import pytest
import torch
from serving import RANK, Serving, random_lora, replies_of
from tiny_model import FAMILIES, write_tiny_model
from waiting import wait_for

from chatrlhf.engine.batch import Advance, JointSteps
from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.native_step import NativeDecoder
from chatrlhf.engine.requests import ChatMessage, Failed
from chatrlhf.engine.small_batch import speed_up
from chatrlhf.engine.turn import Turn
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.native import decoder as native

has_library = native.library() is not None
# Family, quantization, whether the library decodes.
KINDS = [
    pytest.param("llama", "fp32", False, id="llama fp32"),
    pytest.param("gemma3", "fp32", False, id="gemma3 fp32"),
    pytest.param("gemma3", "bf16", False, id="gemma3 bf16"),
    pytest.param(
        *("gemma3", "bf16", True),
        marks=pytest.mark.skipif(not has_library, reason="needs a C++ compiler"),
        id="native",
    ),
]
STORY = "When 12 cats sat, 34 dogs ran? "


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory):
    """A model that suits the library."""
    target = tmp_path_factory.mktemp("batching") / "gemma3"
    return write_tiny_model(target, "gemma3", hidden=256, vocab=339, sliding_window=24)


@pytest.fixture
def serve_kind(serve, wide_folder, tmp_path):
    """An engine with v0 and v1 that decodes as wanted."""
    running = []

    def started(family, quantization, natively, **settings):
        if not natively:
            serving = serve(family, quantization, native="off", **settings)
        else:
            base = load_base_model(wide_folder, quantization=quantization, device="cpu")
            serving = Serving(base, LoraBank(base.model, RANK, float(RANK)), tmp_path, **settings)
            running.append(serving)
            assert serving.engine.statistics()["decoding"].startswith("native")
        serving.load("v1")
        return serving

    yield started
    for serving in running:
        serving.engine.stop()


@pytest.fixture
def joint(monkeypatch):
    """How many requests and rows each step had."""
    seen = []
    step = JointSteps.step

    def noted(steps, group, number=0):
        seen.append((len(group), sum(len(one.token_ids) for one in group)))
        return step(steps, group, number)

    monkeypatch.setattr(JointSteps, "step", noted)
    return seen


@pytest.fixture(autouse=True)
def no_joint_step_failed(request, caplog):
    """Unless a test makes steps fail, none is to be taken again by each alone."""
    yield
    if "broken_step" not in request.function.__code__.co_names:
        assert "requests failed" not in caplog.text


def sampled(serving):
    return serving.engine.statistics()["tokens"]


REQUESTS = [
    {"text": "one", "replies": 3, "versions": ("v0",) * 3, "max_new_tokens": 30},
    {"text": STORY * 3, "replies": 2, "versions": ("v1",) * 2, "max_new_tokens": 50},
    {"text": STORY * 7, "replies": 4, "versions": ("v0", "v1", "v1", "v0"), "max_new_tokens": 40},
    {"text": "four?", "replies": 1, "versions": ("v1",), "max_new_tokens": 60, "top_k": 30},
    {"text": "five", "replies": 8, "versions": ("v0",) * 8, "temperature": 0.6, "top_p": 0.8},
]


@pytest.mark.parametrize(("family", "quantization", "natively"), KINDS)
def test_same_seed_same_reply_alone_or_in_a_batch_of_versions_and_lengths(
    serve_kind, joint, family, quantization, natively
):
    serving = serve_kind(family, quantization, natively)
    alone = [serving.ask(**request) for request in REQUESTS]
    assert {requests for requests, _ in joint} == {1}
    joint.clear()
    streams = [serving.submit(**request) for request in REQUESTS]
    assert [replies_of(stream) for stream in streams] == alone
    assert max(requests for requests, _ in joint) >= 4
    assert max(rows for _, rows in joint) <= native.MAX_ROWS


@pytest.mark.parametrize(("family", "quantization", "natively"), KINDS)
def test_requests_that_join_and_leave_midway_change_no_reply(
    serve_kind, joint, slow_steps, family, quantization, natively
):
    serving = serve_kind(family, quantization, natively)
    long = {"text": STORY * 2, "replies": 3, "versions": ("v0", "v1", "v0"), "seed": 3}
    long |= {"max_new_tokens": 90, "temperature": 0.5}
    expected = serving.ask(**long)
    others = [serving.ask(**request) for request in REQUESTS]
    joint.clear()
    stream = serving.submit(**long)
    for request, of_other in zip(REQUESTS, others, strict=True):
        before = sampled(serving)
        wait_for(lambda before=before: sampled(serving) > before + 6, 20.0)
        joined = serving.submit(**request)
        if request is REQUESTS[1]:
            cut = joined
            before = sampled(serving)
            wait_for(lambda before=before: sampled(serving) > before + 15, 20.0)
            joined.cancel()
            for reply, whole in zip(replies_of(cut), of_other, strict=True):
                assert reply.token_ids == whole.token_ids[: len(reply.token_ids)]
        elif request is REQUESTS[3]:
            assert replies_of(joined) == of_other
    assert replies_of(stream) == expected
    assert max(requests for requests, _ in joint) > 1


def test_more_rows_than_a_step_takes_go_into_further_steps(serve, joint):
    serving = serve(active_turns=8)
    ask = {"replies": 8, "max_new_tokens": 30, "temperature": 0.5}
    alone = [serving.ask(str(seed), seed=seed, **ask) for seed in range(6)]
    joint.clear()
    streams = [serving.submit(str(seed), seed=seed, **ask) for seed in range(6)]
    assert [replies_of(stream) for stream in streams] == alone
    assert max(rows for _, rows in joint) == native.MAX_ROWS
    assert [rows for _, rows in joint if rows + 8 > native.MAX_ROWS]


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_torchs_joint_step_gives_every_family_the_bits_of_a_step_alone(tmp_path, family):
    base = load_base_model(write_tiny_model(tmp_path / family, family), quantization="fp32")
    bank = LoraBank(base.model, RANK, float(RANK))
    for name, seed in (("a", 1), ("b", 2)):
        bank.add(name)
        bank.load_state(name, random_lora(bank, seed))
    speed_up(base.model)
    steps = JointSteps(base, bank, None)
    rows = [(40, ["a"] * 4), (9, ["b", "a"]), (17, ["b"]), (12, ["a", "b", "a", "b", "a"])]

    def states():
        return [
            DecodeState.prefill(base, bank, [range(70, 70 + n)] * len(names), adapters=names)
            for n, names in rows
        ]

    together, alone = states(), states()
    for step in range(4):
        ids = [torch.arange(len(names)) + 100 + step for _, names in rows]
        advances = [Advance(*pair) for pair in zip(together, ids, strict=True)]
        (group,) = steps.groups(advances)
        assert steps.step(group) == [None] * len(rows)
        for mine, token_ids, other in zip(alone, ids, together, strict=True):
            assert steps.step([Advance(mine, token_ids)]) == [None]
            assert torch.equal(mine.logits, other.logits)
            assert mine.length == other.length == other.cache.length


def broken_step(monkeypatch, natively, is_broken):
    """Let steps fail in which a request takes part that ``is_broken`` (by its lengths)."""
    if natively:
        step = NativeDecoder.step

        def failing(decoder, segments, out=None):
            if any(is_broken(segment.cache.length) for segment in segments):
                raise RuntimeError("a cosmic ray")
            return step(decoder, segments, out)

        monkeypatch.setattr(NativeDecoder, "step", failing)
        return
    together = JointSteps._by_torch

    def failing_torch(steps, group):
        found = together(steps, group)  # keys and values are appended already
        if any(is_broken(one.state.length) for one in group):
            raise RuntimeError("a cosmic ray")
        return found

    monkeypatch.setattr(JointSteps, "_by_torch", failing_torch)


@pytest.mark.parametrize(("family", "quantization", "natively"), KINDS)
def test_an_exception_in_a_joint_step_fails_only_who_causes_it(
    serve_kind, joint, slow_steps, monkeypatch, family, quantization, natively
):
    serving = serve_kind(family, quantization, natively)
    good = [
        {"text": "one", "replies": 2, "max_new_tokens": 60, "temperature": 0.4},
        {"text": "another", "replies": 3, "max_new_tokens": 60, "versions": ("v1",) * 3},
    ]
    expected = [serving.ask(**request) for request in good]
    broken_step(monkeypatch, natively, lambda length: length > 150)
    bad = serving.submit(STORY * 12, replies=2, max_new_tokens=60, temperature=0.4)
    beside = [serving.submit(**request) for request in good]
    *_, failed = list(bad)
    assert isinstance(failed, Failed)
    assert "a cosmic ray" in failed.message
    assert [replies_of(stream) for stream in beside] == expected
    assert max(requests for requests, _ in joint) >= 2
    assert serving.bank._active.name is None
    assert serving.bank._active.rows is None
    assert serving.engine.statistics()["cache_bytes"] == 0
    assert not serving.engine._slots._pins
    assert [serving.ask(**request) for request in good] == expected


@pytest.mark.parametrize(("family", "quantization", "natively"), KINDS)
def test_a_joint_step_that_fails_once_is_taken_again_by_each_alone(
    serve_kind, joint, monkeypatch, family, quantization, natively
):
    serving = serve_kind(family, quantization, natively)
    expected = [serving.ask(**request) for request in REQUESTS]
    joint.clear()
    once = iter([False] * 40 + [True])
    broken_step(monkeypatch, natively, lambda _length: next(once, False))
    streams = [serving.submit(**request) for request in REQUESTS]
    assert [replies_of(stream) for stream in streams] == expected
    assert next(once, None) is None
    assert max(requests for requests, _ in joint) > 1


@pytest.mark.parametrize(("family", "quantization", "natively"), KINDS)
def test_rows_that_are_not_numbers_fail_their_own_request_only(
    serve_kind, slow_steps, family, quantization, natively
):
    serving = serve_kind(family, quantization, natively)
    good = {"text": "good", "replies": 3, "versions": ("v0",) * 3, "max_new_tokens": 60}
    expected = serving.ask(**good)
    bad = serving.submit("bad", replies=2, versions=("v1",) * 2, max_new_tokens=200)
    beside = serving.submit(**good)
    wait_for(lambda: sampled(serving) > 12, 20.0)
    adapter = serving.engine._slots.pin(["v1"])[0]
    spoiled = serving.bank.state_of(adapter)

    def spoil():  # past every check
        for parameter in serving.bank.parameters_of(adapter):
            parameter.fill_(float("nan"))
        serving.bank.mark_changed(adapter)

    serving.engine._scheduler.command(spoil)
    *_, failed = list(bad)
    assert isinstance(failed, Failed)
    assert "not numbers" in failed.message
    assert replies_of(beside) == expected
    serving.engine._scheduler.command(lambda: serving.bank.load_state(adapter, spoiled))
    assert serving.ask(**good) == expected


def test_a_fault_with_the_text_of_a_reply_fails_that_request_only(serve, slow_steps, monkeypatch):
    serving = serve()
    expected = serving.ask("good", replies=2, max_new_tokens=40)
    accept = Turn.accept

    def failing(turn, drawn):
        if turn.rows == 3 and turn._steps == 5:
            raise RuntimeError("odd bytes")
        return accept(turn, drawn)

    monkeypatch.setattr(Turn, "accept", failing)
    bad = serving.submit("bad", replies=3, max_new_tokens=40, temperature=0.3)
    assert replies_of(serving.submit("good", replies=2, max_new_tokens=40)) == expected
    assert "odd bytes" in list(bad)[-1].message


def test_a_long_prompt_holds_a_running_stream_up_by_one_chunk_at_a_time(serve, monkeypatch):
    serving = serve()
    order, prefill, step = [], Turn.prefill, JointSteps.step
    go = threading.Event()

    def noted_prefill(turn, seconds):
        order.append("chunk" if len(turn.work.prompt) > 200 else "short")
        prefill(turn, seconds)

    def noted_step(steps, group, number=0):
        order.append("step")
        if len(order) > 4:
            go.wait(20.0)
        return step(steps, group, number)

    monkeypatch.setattr(Turn, "prefill", noted_prefill)
    monkeypatch.setattr(JointSteps, "step", noted_step)
    running = serving.submit("short", max_new_tokens=60, temperature=0.3)
    wait_for(lambda: len(order) > 4, 20.0)
    prompt = (ChatMessage("user", STORY * 12),)
    waiting = serving.submit(prompt, max_new_tokens=4)
    go.set()
    assert replies_of(running)
    assert replies_of(waiting)
    chunks = [place for place, what in enumerate(order) if what == "chunk"]
    assert len(chunks) >= 2
    assert all(order[place + 1] == "step" for place in chunks[:-1])


@pytest.mark.skipif(not has_library, reason="needs a C++ compiler")
def test_a_prompt_read_natively_is_left_when_its_time_is_over_and_gives_the_same(
    serve_kind, slow_steps, monkeypatch
):
    serving = serve_kind("gemma3", "bf16", True, prefix_cache_tokens=0)
    story = {"text": STORY * 12, "replies": 2, "versions": ("v1",) * 2, "max_new_tokens": 8}
    beside = {"text": "short", "replies": 3, "max_new_tokens": 120, "temperature": 0.3}
    expected = [serving.ask(**beside), serving.ask(**story)]
    read, prefill = [], Turn.prefill

    def noted(turn, seconds):
        assert 0.0 < seconds < 60.0  # that of a round: a reply runs
        prefill(turn, 0.0)
        read.append(turn.state or turn._prefilled["v1"])

    running = serving.submit(**beside)
    wait_for(lambda: serving.engine.statistics()["active"] == 1, 20.0)
    before = sampled(serving)
    wait_for(lambda: sampled(serving) > before + 6, 20.0)
    monkeypatch.setattr(Turn, "prefill", noted)
    before = sampled(serving)
    waiting = serving.submit(**story)
    wait_for(lambda: read and read[-1].logits.numel(), 20.0)
    assert len(read) >= 3
    assert sampled(serving) >= before + 3 * (len(read) - 1)  # a step between any two pieces
    assert [replies_of(running), replies_of(waiting)] == expected


def test_a_short_prompt_goes_before_a_long_one_and_a_long_one_is_not_starved(serve, monkeypatch):
    serving = serve(prefix_cache_tokens=0)
    order, prefill = [], Turn.prefill
    go = threading.Event()

    def noted(turn, seconds):
        go.wait(20.0)
        order.append("long" if len(turn.work.prompt) > 200 else "short")
        prefill(turn, seconds)

    monkeypatch.setattr(Turn, "prefill", noted)
    first = serving.submit("first", max_new_tokens=2)  # holds the thread until all are there
    wait_for(lambda: serving.engine.statistics()["active"] == 1, 20.0)
    long = serving.submit(STORY * 12, max_new_tokens=2)
    short = [serving.submit("short", max_new_tokens=2, seed=seed) for seed in range(13)]
    go.set()
    assert all(replies_of(stream) for stream in [first, long, *short])
    assert order[:5] == ["short"] * 5
    assert "long" in order[:10]  # it waited for eight
    assert order.count("short") == 14
    assert order.count("long") >= 2
