"""The generation benchmark: its arithmetic by hand, and the whole of it on a tiny model."""

from __future__ import annotations

import importlib.util
import json
import math

import generation
import pytest
import torch
from fresh_process import MeasurementFailed, reason_of
from generation_results import ratios, summary
from generation_workload import GenerationWorkload, perplexity_of
from tiny_gguf import write_tiny_gguf
from tiny_model import write_tiny_model
from transformers import AutoModelForCausalLM

HAS_LLAMA = importlib.util.find_spec("llama_cpp") is not None


def run_of(seconds, perplexity=None):
    """A process whose requests of K=4 took these seconds, a second of it to the first token."""
    timings = [{"first_seconds": 1.0, "seconds": one, "tokens": 40} for one in seconds]
    return {
        "k4": timings,
        "peak_rss": 2 << 30,
        "rss_after_loading": 1 << 30,
        "load_seconds": 3.0,
        "perplexity": perplexity,
    }


RUNS = {
    "engine": [run_of([5.0, 2.0, 4.0], perplexity=10.1), run_of([8.0, 8.0, 8.0])],
    "generate": [run_of([10.0, 8.0, 20.0], perplexity=10.0), run_of([8.0, 8.0, 10.0])],
}


def test_ratios_are_medians_over_pairs_of_processes():
    found = ratios(RUNS)
    assert found["ratio_generate_k4"] == pytest.approx((2.5 + 1.0) / 2)
    assert found["ratio_generate_k4_range"] == pytest.approx([1.0, 2.5])
    assert found["perplexity_ratio"] == pytest.approx(1.01)
    assert "ratio_llama_k4" not in found


def test_the_summary_takes_all_requests_together():
    one = summary(RUNS)["engine"]
    speeds = one["k4"]["tokens_per_second"]
    assert speeds == pytest.approx({"median": (8 + 5) / 2, "least": 5.0, "most": 20.0})
    # 36 tokens after the first of each reply.
    assert one["k4"]["decode_tokens_per_second"]["most"] == pytest.approx(36.0)
    assert one["peak_rss_gib"]["median"] == 2.0
    assert one["perplexity"] == 10.1


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices():
    assert perplexity_of([math.log(1 / 7)] * 5) == pytest.approx(7.0)


@pytest.mark.parametrize("reason", ["no package", "no file"])
def test_llama_is_left_out_with_the_reason(monkeypatch, reason):
    found = None if reason == "no package" else object()
    monkeypatch.setattr(generation, "find_spec", lambda name: found)
    sides, why = generation.chosen_sides(list(generation.SIDES), None)
    assert sides == ["engine", "generate"]
    assert ("pip install" if reason == "no package" else "--gguf") in why


def test_a_side_that_fails_is_left_out_and_the_others_go_on(monkeypatch, capsys):
    def in_turn(name, workload, repeat, *, peers_sleep):
        if name == "generate":
            raise MeasurementFailed("out of memory", "a long trace")
        return run_of([2.0])

    monkeypatch.setattr(generation, "run_side", in_turn)
    *_, (runs, failed) = generation.measure(None, ["engine", "generate"], 2, peers_sleep=False)
    assert failed == {"generate": "out of memory"}
    assert [len(one) for one in runs.values()] == [2]
    assert capsys.readouterr().out.count("out of memory") == 1


def test_llama_is_tried_again_with_plain_weights_when_it_crashes(monkeypatch):
    def crashing(name, workload, repeat, *, peers_sleep, plain=False):
        if not plain:
            raise MeasurementFailed("ended by SIGSEGV", "")
        return run_of([2.0])

    monkeypatch.setattr(generation, "run_side", crashing)
    *_, (runs, failed) = generation.measure(None, ["engine", "llama"], 1, peers_sleep=False)
    assert failed == {"engine": "ended by SIGSEGV"}
    assert runs["llama"][0]["plain_because"] == "ended by SIGSEGV"


def test_a_crash_is_named_by_its_signal():
    assert reason_of(-11, "") == "ended by SIGSEGV"


@pytest.mark.parametrize("option", ["--tokens 0", "--replies 0", "--text-tokens 2", "--threads 0"])
def test_bad_numbers_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        generation.parse(option.split())
    assert option.split()[0] in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit, match=r"no-such-model cannot be measured: .*no model"):
        generation.main(["--model", "no-such-model"])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What one run of the whole benchmark wrote."""
    folder = tmp_path_factory.mktemp("generation")
    model = write_tiny_model(folder / "qwen3", "qwen3")
    gguf = write_tiny_gguf(folder / "tiny.gguf", model)
    options = (
        f"--model {model} --gguf {gguf} --json {folder / 'found.json'} --quantization fp32 "
        "--tokens 5 --replies 1 4 --processes 1 --repeats 2 --warmup 0 --threads 1 "
        "--text-rows 3 --text-tokens 12"
    )
    generation.main(options.split())
    return {"model": model, **json.loads((folder / "found.json").read_text())}


@pytest.mark.slow
def test_the_whole_benchmark_runs_on_a_tiny_model(report):
    wanted = set(generation.SIDES) if HAS_LLAMA else {"engine", "generate"}
    assert set(report["runs"]) == wanted
    for (run,) in report["runs"].values():
        for replies in (1, 4):
            timings = run[f"k{replies}"]
            assert [one["tokens"] for one in timings] == [5 * replies] * 2
            assert all(0 < one["first_seconds"] < one["seconds"] for one in timings)
        assert run["peak_rss"] >= run["rss_after_loading"] > 10 << 20
    ours, theirs = (
        sorted(one["tokens"] / one["seconds"] for one in report["runs"][side][0]["k4"])
        for side in ("engine", "generate")
    )
    assert report["ratio_generate_k4"] == pytest.approx(sum(ours) / sum(theirs))


@pytest.mark.slow
def test_the_perplexity_is_that_of_the_loss(report):
    # The texts again, by transformers' own loss in float32.
    from generation_prepare import rows_of_text

    from chatrlhf.models.weights import load_tokenizer

    rows = torch.tensor(rows_of_text(load_tokenizer(report["model"]), 3, 12))
    model = AutoModelForCausalLM.from_pretrained(report["model"], dtype=torch.float32)
    with torch.no_grad():
        wanted = math.exp(float(model(rows, labels=rows).loss))
    found = {name: one["perplexity"] for name, one in report["summary"].items()}
    # The engine never samples control tokens, which leaves more for the others.
    assert wanted * 0.99 < found["engine"] <= wanted * (1 + 1e-4)
    assert found["generate"] == pytest.approx(wanted, rel=0.05)  # bfloat16
    assert report["perplexity_ratio"] == pytest.approx(found["engine"] / found["generate"])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LLAMA, reason="needs the extra bench")
def test_llama_runs_the_same_model_in_one_batch_a_step(report):
    found = {name: one["perplexity"] for name, one in report["summary"].items()}
    assert found["llama"] == pytest.approx(found["engine"], rel=0.02)
    notes = report["runs"]["llama"][0]["notes"]
    assert notes["batches_of_last_request"] == 5  # the prompt, then four batches of K tokens
    assert report["ratio_llama_k4"] > 0
    assert {"llama-top-k", "llama-bare"} <= report["summary"].keys()


@pytest.mark.skipif(not HAS_LLAMA, reason="needs the extra bench")
def test_llama_decodes_each_sequence_as_it_would_alone(tmp_path):
    # Greedy through a top-p that keeps one token; transformers' greedy reply in float32 decides.
    from generation_llama import LlamaSide

    folder = write_tiny_model(tmp_path / "qwen3", "qwen3")
    prompt = [40, 50, 60, 70, 80, 90]
    workload = GenerationWorkload(
        folder=str(folder),
        gguf=str(write_tiny_gguf(tmp_path / "tiny.gguf", folder)),
        questions=[""],
        prompts=[prompt],
        texts=[prompt],
        replies=[1, 3],
        tokens=6,
        top_p=1e-6,
        threads=1,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        wanted = model.generate(
            ids, do_sample=False, max_new_tokens=6, eos_token_id=None, pad_token_id=0
        )
    side = LlamaSide(workload, drawn=True)
    for replies in (1, 3):
        timing = side.ask(0, replies)
        assert timing.tokens == 6 * replies
        assert side.replies == [wanted[0, len(prompt) :].tolist()] * replies
