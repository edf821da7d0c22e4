"""The learning benchmark on a tiny random model: its numbers fit together, and it resumes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import learning
import learning_run
import policy_learning
import pytest
import torch
from learning_results import Results
from policy_learning import Plan, learn_directly, learn_from_rankings, simulated_rankings
from tiny_model import write_tiny_model
from workbench import build_workbench

from chatrlhf.loop.raters import Rater
from chatrlhf.models.base_model import load_base_model
from chatrlhf.settings import ModelSettings, PpoSettings

PPO = PpoSettings(
    learning_rate=3e-3, value_learning_rate=3e-3, iterations=3, batch_size=8, max_new_tokens=6
)


def share_of_vowels(text):
    """A true score without any model."""
    return sum(text.count(vowel) for vowel in "aeiou") / max(len(text), 1)


PLAN = Plan(
    rater=Rater("vowels", share_of_vowels), ppo=PPO, rankings=16, replies=3, held_out_replies=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("learning") / "llama", hidden=32)


@pytest.fixture(scope="module")
def bench(folder):
    base = load_base_model(folder, quantization="fp32", device="cpu", training=True)
    base.chat_format.end_token_ids = frozenset(range(64))  # so that most replies end
    found = build_workbench(base, ModelSettings(lora_rank=4, lora_alpha=4.0))
    return dataclasses.replace(found, train=found.train[:20], held_out=found.held_out[:5])


@pytest.mark.parametrize("learn", [learn_directly, learn_from_rankings])
def test_a_seed_measures_the_change_on_held_out_prompts(bench, learn):
    seen = []
    found = learn(bench, PLAN, 1, lambda iteration, row: seen.append((iteration, row["kl"])))
    change = found["true_score_after"] - found["true_score_before"]
    assert found["difference"]["estimate"] == pytest.approx(change, abs=1e-9)
    assert found["difference"]["low"] <= change <= found["difference"]["high"]
    assert [iteration for iteration, _ in seen] == [1, 2, 3]
    assert [row["kl"] for row in found["curve"]] == [kl for _, kl in seen]
    assert found["held_out_prompts"] == 5
    assert found["kl"] != 0.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_policy_that_cannot_move_changes_nothing(bench):
    still = dataclasses.replace(PPO, learning_rate=1e-20, value_learning_rate=1e-20)
    found = learn_directly(bench, dataclasses.replace(PLAN, ppo=still), 0)
    assert found["difference"]["estimate"] == 0.0
    assert found["kl"] == pytest.approx(0.0, abs=1e-6)
    assert found["given_score_after"] == found["given_score_before"]


def test_the_direct_reward_is_the_true_score_on_the_scale_of_the_start(bench):
    found = learn_directly(bench, PLAN, 2)
    for row in found["curve"]:
        moved = row["true_score"] - found["true_score_mean"]
        assert row["score"] == pytest.approx(moved / found["true_score_deviation"], abs=1e-4)


def test_simulated_rankings_follow_the_true_score(bench):
    examples = simulated_rankings(bench, PLAN, 3)
    assert 4 < len(examples) <= PLAN.rankings
    decode = bench.base.chat_format.decode
    ends = bench.base.chat_format.end_token_ids
    for example in examples:
        scores = []
        for sequence in example.sequences:
            pairs = zip(sequence.token_ids, sequence.is_response, strict=True)
            spoken = [token for token, is_response in pairs if is_response]
            scores.append(share_of_vowels(decode(spoken[:-1] if spoken[-1] in ends else spoken)))
        best_first = sorted(set(scores), reverse=True)
        assert list(example.ranks) == [best_first.index(score) + 1 for score in scores]


def test_results_are_kept_and_not_mixed_with_those_of_other_settings(tmp_path):
    file, key = tmp_path / "results.json", {"part": "direct", "seed": 3}
    Results(file).add(key, {"batch": 4}, {"kl": 1.5})
    again = Results(file)
    assert again.entries[0]["kl"] == 1.5
    assert again.has(key, {"batch": 4})
    assert not again.has({"part": "direct", "seed": 4}, {"batch": 4})
    with pytest.raises(SystemExit, match=r"results\.json holds part direct, seed 3"):
        again.has(key, {"batch": 5})


def test_the_whole_benchmark_runs_and_goes_on_from_its_file(folder, tmp_path, capsys, monkeypatch):
    pairs = [
        {"prompt": f"question {n}", "chosen": "e" * (3 + n % 5), "rejected": "o" * (3 + n % 7)}
        for n in range(60)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    options = (
        f"--model {folder} --json {tmp_path / 'found.json'} --pairs {tmp_path / 'pairs.jsonl'} "
        "--seeds 0 --iterations 1 --batch 4 --max-new-tokens 4 --held-out-replies 1 "
        "--rankings 8 --replies 2 --rater shorter --methods head adapter --sizes 20 "
        "--adapter-sizes --epochs 1 " + (f"--images {tmp_path}" if has_matplotlib else "")
    )
    arguments = learning.parser().parse_args(options.split())
    try:
        learning_run.run(arguments)
        first = (tmp_path / "found.json").read_bytes()
        shown = capsys.readouterr().out
        monkeypatch.setattr(policy_learning, "learn_directly", None)
        monkeypatch.setattr(policy_learning, "learn_from_rankings", None)
        learning_run.run(arguments)
    finally:
        torch.set_flush_denormal(False)
    assert (tmp_path / "found.json").read_bytes() == first
    results = json.loads(first)["results"]
    assert [one["seed"] for one in results if one["part"] == "direct"] == [0]
    assert [one["seed"] for one in results if one["part"] == "learned"] == [0]
    fits = {
        (one["method"], one["train_pairs"], one["seed"]): one
        for one in results
        if one["part"] == "human"
    }
    whole = max(size for _, size, _ in fits)
    assert set(fits) == {
        ("longer", 0, 0),
        ("head", 20, 0),
        ("head", whole, 0),
        ("adapter", whole, 0),
    }
    for key in fits.keys() - {("longer", 0, 0)}:  # letters that differ are easy to tell apart
        assert fits[key]["right"] >= 0.9 * fits[key]["held_out_pairs"]
    assert "## direct" in shown
    assert "## human" in shown
    if has_matplotlib:
        drawn = {path.name for path in tmp_path.glob("learning-*.png")}
        assert drawn == {f"learning-{part}.png" for part in ("direct", "learned", "human")}
