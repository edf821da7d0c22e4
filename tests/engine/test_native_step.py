"""Decode steps in the native library: torch's logits up to rounding, the same bits in any batch."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch
from serving import RANK, Serving, random_lora, replies_of
from tiny_model import write_tiny_model

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.native_check import native_decoder
from chatrlhf.engine.small_batch import speed_up
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.native import decoder as native
from chatrlhf.native import library

needs_library = pytest.mark.skipif(native.library() is None, reason="needs a C++ compiler")
KINDS = pytest.mark.parametrize("kind", [native.INT8, native.BF16], ids=["int8", "bf16"])
CONFIGS = {
    "llama": {},
    "llama-rope": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "qwen3": {},
    "gemma3": {"sliding_window": 24},
    "mistral": {"sliding_window": 24},
    "smollm": {"layers": 4},  # the last has no rotary embedding
}
PROMPTS = [list(range(70, 115)), list(range(150, 170)), list(range(220, 227))]


def tokens(step):
    return torch.tensor([80 + step, 200 + step, 300 - step])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Models whose sizes suit the library: heads of 64, a vocabulary that fills no block."""
    written = {}

    def folder(name):
        if name not in written:
            target = tmp_path_factory.mktemp("native") / name
            sizes = {"hidden": 256, "vocab": 339, **CONFIGS.get(name, {})}
            written[name] = write_tiny_model(target, name.partition("-")[0], **sizes)
        return written[name]

    return folder


@pytest.fixture
def build(folders):
    """A base, its bank with the adapters a and b, and its native decoder."""

    def built(name="llama", kind=native.INT8, threads=1, quantization="bf16"):
        base = load_base_model(folders(name), quantization=quantization, device="cpu")
        bank = LoraBank(base.model, RANK, float(RANK))
        for adapter, seed in (("a", 1), ("b", 2)):
            bank.add(adapter)
            bank.load_state(adapter, random_lora(bank, seed, scale=0.1))
        speed_up(base.model)
        return base, bank, native_decoder(base, bank, kind, threads)

    return built


def difference(ours, theirs):
    """Relative difference of logits (B, V), whose common shift means nothing."""
    sampled = theirs[0] > -1e29
    ours, theirs = (
        one[:, sampled] - one[:, sampled].mean(-1, keepdim=True) for one in (ours, theirs)
    )
    return float((ours - theirs).norm() / theirs.norm())


@needs_library
@KINDS
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_padded_rows_of_two_versions_get_torchs_logits(build, name, kind):
    base, bank, decoder = build(name, kind)
    names = ["a", "b", "a"]
    theirs = DecodeState.prefill(base, bank, PROMPTS, adapters=names)
    ours = DecodeState.prefill(base, bank, PROMPTS, adapters=names, native=decoder)
    swapped = DecodeState.prefill(base, bank, PROMPTS, adapters=["b", "a", "b"], native=decoder)
    for step in range(12):
        expected = theirs.step(tokens(step))
        assert difference(ours.step(tokens(step)), expected) < (0.15, 0.06)[kind]
        assert difference(swapped.step(tokens(step)), expected) > 0.2  # the adapters do something
    assert ours.length == ours.cache.length == theirs.length


@needs_library
@KINDS
@torch.inference_mode()
def test_steps_go_on_beyond_the_room_of_mask_and_cache_and_back_to_torch(build, kind):
    base, bank, decoder = build("gemma3", kind)
    theirs = DecodeState.prefill(base, bank, PROMPTS, adapters=["a"] * 3)
    ours = DecodeState.prefill(base, bank, PROMPTS, adapters=["a"] * 3, native=decoder)
    for step in range(300):
        theirs.step(tokens(step % 30))
        ours.step(tokens(step % 30))
    assert difference(ours.logits, theirs.logits) < 0.1
    chunk = torch.arange(80, 89).view(3, 3)
    assert difference(ours.extend(chunk), theirs.extend(chunk)) < 0.1


@needs_library
@KINDS
@pytest.mark.parametrize("name", ["gemma3", "qwen3"])
@torch.inference_mode()
def test_a_row_has_the_same_bits_alone_in_any_batch_and_with_any_number_of_threads(
    build, name, kind
):
    base, bank, decoder = build(name, kind)
    prompt = PROMPTS[0]
    names = ["a", "b"] * 10
    whole = DecodeState.prefill(base, bank, [prompt], 20, adapters=["a"], native=decoder)
    whole._pin(names)
    ids = torch.arange(100, 120)
    logits = [whole.step(ids + step) for step in range(3)]
    for threads in (1, 2, 3):
        decoder.threads = threads
        for rows in ([3], [4, 5], [0, 9, 19], list(range(1, 18))):
            some = DecodeState.prefill(
                base, bank, [prompt], len(rows), adapters=["a"], native=decoder
            )
            some._pin([names[row] for row in rows])
            for step in range(3):
                assert torch.equal(some.step(ids[rows] + step), logits[step][rows])


@needs_library
@KINDS
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_a_prompt_gets_the_same_bits_however_it_is_cut_and_torchs_logits(build, name, kind):
    base, bank, decoder = build(name, kind)
    prompt = list(range(70, 167))
    expected = DecodeState.prefill(base, bank, [prompt], adapters=["a"])
    read = []
    for threads, cuts in ((1, [97]), (3, [40, 57]), (2, [1] * 97), (2, [31, 2, 64])):
        decoder.threads = threads
        state = DecodeState(base, bank, adapters=["a"], native=decoder)
        for size in cuts:
            assert state.logits.numel() == 0
            tokens_of = prompt[state.length : state.length + size]
            is_last = state.length + size == len(prompt)
            assert state.read(tokens_of, 60.0, has_logits=is_last)
        assert state.length == state.cache.length == len(prompt)
        states = [(layer.keys, layer.values) for layer in state.cache.layers]
        kept = [part[:, :, : len(prompt)] for pair in states for part in pair]
        read.append((state.logits, state.step(torch.tensor([80])), kept))
    assert difference(read[0][0], expected.logits) < (0.15, 0.06)[kind]
    for logits, next_logits, kept in read[1:]:
        assert torch.equal(logits, read[0][0])
        assert torch.equal(next_logits, read[0][1])
        assert all(map(torch.equal, kept, read[0][2]))


@needs_library
@torch.inference_mode()
def test_a_prompt_is_left_when_its_time_is_over(build):
    base, bank, decoder = build()
    state = DecodeState(base, bank, adapters=["a"], native=decoder)
    prompt = list(range(70, 167))
    assert state.read(prompt, 0.0, has_logits=True)
    assert state.length == native.MAX_ROWS
    assert state.logits.numel() == 0


@needs_library
@KINDS
@torch.inference_mode()
def test_rows_without_an_adapter_get_the_bare_base(build, kind):
    base, bank, decoder = build("llama", kind)
    theirs = DecodeState.prefill(base, bank, PROMPTS)
    ours = DecodeState.prefill(base, bank, PROMPTS, adapters=[None] * 3, native=decoder)
    assert difference(ours.step(tokens(0)), theirs.step(tokens(0))) < (0.15, 0.06)[kind]


@needs_library
@torch.inference_mode()
def test_new_weights_in_a_slot_are_used(build):
    base, bank, decoder = build("llama", native.BF16)

    def logits(name):
        state = DecodeState.prefill(base, bank, PROMPTS, adapters=["b"] * 3)
        state.native, state._adapters = decoder, (name,) * 3
        return state.step(tokens(0))

    before, other = logits("a"), logits("b")
    assert difference(before, other) > 0.2
    bank.copy("b", "a")
    assert torch.equal(logits("a"), other)


@needs_library
@pytest.mark.parametrize("name", ["phi3", "llama"])
def test_models_it_does_not_compute_are_left_to_torch(build, folders, caplog, name):
    caplog.set_level(logging.INFO)
    assert build(name, quantization="bf16" if name == "phi3" else "fp32")[2] is None
    assert "decoding runs on torch" in caplog.text


@needs_library
@torch.inference_mode()
def test_a_decoder_with_another_result_is_refused(build, caplog):
    caplog.set_level(logging.INFO)
    base, bank, decoder = build("qwen3", native.BF16)
    assert decoder is not None
    for layer in base.decoder.layers:  # as in Granite: a factor that the library does not know
        layer.self_attn.scaling *= 4.0
        forward = layer.mlp.forward
        layer.mlp.forward = lambda x, forward=forward: 0.5 * forward(x)
    assert native_decoder(base, bank, native.BF16, 1) is None
    assert "computes other logits than torch" in caplog.text
    assert set(bank.names) == {"shape", "a", "b"}


@needs_library
def test_without_memory_for_int8_torch_decodes(build, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    full = type("Memory", (), {"available": 1000})()
    monkeypatch.setattr("psutil.virtual_memory", lambda: full)
    monkeypatch.setattr("chatrlhf.models.base_model.check_memory", lambda *_: None)
    assert build()[2] is None
    assert "more in int8, and 1 kB are free" in caplog.text
    assert build(kind=native.BF16)[2] is not None


@needs_library
@KINDS
@torch.inference_mode()
def test_more_rows_than_the_library_takes_at_once_are_taken_in_turn(build, kind):
    base, bank, decoder = build("gemma3", kind)
    prompts = (PROMPTS * 24)[: 2 * native.MAX_ROWS + 3]
    names = (["a", "b"] * 40)[: len(prompts)]
    ids = torch.arange(90, 90 + len(prompts))
    states = [
        DecodeState.prefill(base, bank, prompts, adapters=names, native=one)
        for one in (None, decoder)
    ]
    many, few = states[1], DecodeState.prefill(base, bank, PROMPTS, adapters=names[:3])
    few.native = decoder
    for step in range(3):
        expected, found = (state.step(ids + step) for state in states)
        assert difference(found, expected) < (0.15, 0.06)[kind]
    assert many.length == many.cache.length == len(PROMPTS[0]) + 3


@needs_library
@torch.inference_mode()
def test_values_that_are_not_numbers_stay_visible(build):
    base, bank, decoder = build()
    for parameter in bank.parameters_of("b"):
        parameter.fill_(float("nan"))
    bank.mark_changed("b")
    state = DecodeState.prefill(base, bank, PROMPTS, adapters=["a"] * 3, native=decoder)
    state._pin(["a", "b", "a"])
    found = state.step(tokens(0))
    assert found[1].isnan().sum() > 200  # all but the suppressed ones
    assert found[[0, 2]].isfinite().all()


@needs_library
@pytest.mark.parametrize("setting", ["auto", "off"])
def test_the_engine_decodes_natively_unless_told_not_to(folders, tmp_path, setting):
    base = load_base_model(folders("gemma3"), quantization="bf16", device="cpu")
    bank = LoraBank(base.model, RANK, float(RANK))
    serving = Serving(base, bank, tmp_path, native=setting, threads=2)
    try:
        decoding = serving.engine.statistics()["decoding"]
        assert decoding.startswith("native int8" if setting == "auto" else "torch")
        assert setting == "off" or decoding.endswith("threads: 2")
        four = serving.ask(replies=4, max_new_tokens=40)
        assert serving.ask(replies=2, max_new_tokens=40) == four[:2]
        serving.load("v1")
        mixed = serving.ask(replies=4, versions=("v0", "v1", "v0", "v1"), max_new_tokens=40)
        alone = serving.ask(replies=2, versions=("v1", "v1"), max_new_tokens=40)
        for ours, theirs in ((mixed[0], four[0]), (mixed[2], four[2]), (mixed[1], alone[1])):
            assert ours.token_ids == theirs.token_ids
            # torch rounds rows of several versions differently from those of one.
            assert setting == "off" or ours == theirs
        assert mixed[1].logprobs != four[1].logprobs
    finally:
        serving.engine.stop()


@needs_library
def test_a_swap_while_replies_stream_leaves_them_as_without_it(folders, tmp_path):
    base = load_base_model(folders("gemma3"), quantization="bf16", device="cpu")
    bank = LoraBank(base.model, RANK, float(RANK))
    serving = Serving(base, bank, tmp_path, resident_versions=2)
    try:
        request = {"replies": 4, "max_new_tokens": 100}
        expected = serving.ask(**request)
        stream = serving.submit(**request)
        while serving.engine.statistics()["tokens"] < 420:
            pass
        serving.load("v1")
        serving.engine.set_live("v1")
        assert replies_of(stream) == expected
        of_v1 = serving.ask(**request)
        serving.load("v2")  # into the slot of v0
        serving.engine.set_live("v2")
        of_v2 = serving.ask(**request)
        drawn = [[reply.logprobs for reply in of] for of in (expected, of_v1, of_v2)]
        assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
        serving.load("v0")  # into the slot of v1
        assert serving.ask(**request, versions=("v0",) * 4) == expected
    finally:
        serving.engine.stop()


def test_without_a_compiler_torch_decodes(tmp_path, folders):
    script = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from chatrlhf.engine.native_check import native_decoder\n"
        "from chatrlhf.models.base_model import load_base_model\n"
        "from chatrlhf.models.lora import LoraBank\n"
        "base = load_base_model(Path(sys.argv[1]), quantization='bf16', device='cpu')\n"
        "bank = LoraBank(base.model, 4, 4.0)\n"
        "assert native_decoder(base, bank, 0, 1) is None\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path), "CXX": ""}
    subprocess.run(
        [sys.executable, "-c", script, str(folders("llama"))],
        check=True,
        env=environment,
        timeout=120,
    )


def test_the_shipped_headers_are_part_of_the_cache_key(tmp_path, monkeypatch):
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, header = tmp_path / "one.cpp", tmp_path / "one.h"
    source.write_text('#include "one.h"\nextern "C" int answer() { return ANSWER; }')
    header.write_text("#define ANSWER 1\n")
    first = library._compiled(source, library.find_compiler())
    header.write_text("#define ANSWER 2\n")
    assert library._compiled(source, library.find_compiler()) != first
