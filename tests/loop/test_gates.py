"""Gates of the reward model: chance, the incumbent, length; with hand-computed numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from planted import example

from chatrlhf.loop.gates import compare, length_note, reward_gate
from chatrlhf.training.reward_evaluation import RewardEvaluation

GOOD = RewardEvaluation(
    rankings=40,
    pairs=100,
    effective_pairs=100.0,
    right=75,
    loss=1.0,
    temperature=1.0,
    calibration_error=0.05,
    length_correlation=0.1,
)
ORDERED = torch.tensor([2.0, 1.0, 0.0])


def scores(right):
    """Scores of three replies with ranks 1, 2, 3 that order so many of the pairs right."""
    return {3: ORDERED, 2: torch.tensor([2.0, 0.0, 1.0]), 0: -ORDERED}[right]


def judged(new, old, prompts=None):
    """A comparison of rankings, one a prompt, by how many pairs each model orders right."""
    keys = prompts or [f"prompt {index}" for index in range(len(new))]
    examples = [example([1, 2, 3], key=key) for key in keys]
    return compare(examples, [scores(n) for n in new], [scores(o) for o in old])


def test_agreement_surely_above_chance_passes():
    gate = reward_gate(GOOD)
    assert gate.passed
    # Wilson's interval of 75 of 100 is 65.7% to 82.5%.
    assert "75 of 100 pairs as you did (75%, 95% interval 66%-82%" in gate.text
    assert "odds are off by 5%" in gate.text


def test_the_interval_is_that_of_the_effective_pairs():
    gate = reward_gate(dataclasses.replace(GOOD, right=60))
    assert gate.passed  # 60 of 100: from 50.2%
    gate = reward_gate(dataclasses.replace(GOOD, right=60, effective_pairs=60.0))
    assert not gate.passed  # 36 of 60: from 47.4%
    assert "not surely better than chance" in gate.text


def test_no_pairs_is_no_pass():
    gate = reward_gate(dataclasses.replace(GOOD, pairs=0, right=0, effective_pairs=0.0))
    assert not gate.passed
    assert "could not be checked" in gate.text


def test_a_comparison_counts_pairs_of_both():
    found = judged([3, 3, 2, 3, 2, 3], [3, 2, 2, 2, 2, 3])
    assert (found.new_right, found.old_right, found.pairs) == (16, 14, 18)
    assert found.difference.estimate == pytest.approx(2 / 18)
    assert not found.is_worse


def test_a_reward_model_that_is_worse_on_every_prompt_does_not_pass():
    comparison = judged([2] * 8, [3] * 8)
    assert comparison.is_worse
    assert comparison.difference == pytest.approx((-1 / 3, -1 / 3, -1 / 3))
    gate = reward_gate(GOOD, comparison)
    assert not gate.passed
    assert "orders 16 as you did, the old one 24. It is surely worse" in gate.text
    assert "-33%" in gate.text


def test_a_little_worse_on_some_prompts_is_not_surely_worse():
    comparison = judged([3, 3, 2, 3, 3, 2, 3, 3], [3, 3, 3, 3, 3, 3, 2, 3])
    assert comparison.difference.estimate < 0
    gate = reward_gate(GOOD, comparison)
    assert gate.passed
    assert "not surely worse" in gate.text


def test_rankings_of_one_prompt_are_drawn_together():
    new, old = [2, 2, 2, 3, 3, 3], [3, 3, 3, 2, 2, 3]
    apart = judged(new, old)
    together = judged(new, old, prompts=["a", "a", "a", "b", "b", "b"])
    assert together.difference.estimate == apart.difference.estimate
    # Drawing only a: -1/3; only b: 2/9.
    assert together.difference.low == pytest.approx(-1 / 3)
    assert together.difference.high == pytest.approx(2 / 9)


@pytest.mark.parametrize(
    ("correlation", "word"), [(0.59, None), (-0.59, None), (0.61, "longer"), (-0.9, "shorter")]
)
def test_length_is_a_note_and_no_gate(correlation, word):
    evaluation = dataclasses.replace(GOOD, length_correlation=correlation)
    note = length_note(evaluation)
    assert (note is None) == (word is None)
    if note is not None:
        assert f"scores {word} replies higher (correlation {correlation:+.2f})" in str(note)
    assert reward_gate(evaluation).passed
