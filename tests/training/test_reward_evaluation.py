"""Evaluation of scores by hand."""

from __future__ import annotations

import math

import pytest
import torch
from planted import example

from chatrlhf.training.reward_data import LabelExample, fold_of
from chatrlhf.training.reward_evaluation import evaluate_scores


def test_evaluation_by_hand():
    found = evaluate_scores(
        [
            example([1, 3, 2], lengths=[2, 4, 6]),  # 2 of 3 right
            example([1, 1], lengths=[3, 3]),  # a tie compares nothing
            example([1, 2], lengths=[5, 1]),  # 1 of 1
        ],
        [torch.tensor([13.0, 12.0, 11.0]), torch.tensor([11.0, 12.0]), torch.tensor([14.0, 11.0])],
    )
    assert (found.rankings, found.pairs, found.right) == (3, 4, 3)
    assert found.accuracy == 0.75
    losses = [
        -math.log(math.e**2 / (math.e**2 + math.e + 1)) + math.log1p(math.e),
        0.0,
        math.log1p(math.exp(-3)),
    ]
    assert found.loss == pytest.approx(sum(losses) / 3, abs=1e-5)
    # Deviations of scores and lengths within rankings: (1, 0, -1) and (-2, 0, 2); (-.5, .5) and
    # (0, 0); (1.5, -1.5) and (2, -2).
    covariance = -4 + 6
    spread = math.sqrt((2 + 0.5 + 4.5) * (8 + 8))
    assert found.length_correlation == pytest.approx(covariance / spread, abs=1e-5)
    # The temperature minimises the mean of log(1 + exp(-m / T)) over margins 1, 2, -1, 3.
    losses_at = {
        t: sum(math.log1p(math.exp(-m / t)) for m in (1, 2, -1, 3))
        for t in (0.98 * found.temperature, found.temperature, 1.02 * found.temperature)
    }
    assert min(losses_at, key=losses_at.get) == found.temperature
    # 3 comparisons of 3 replies are worth 3 * 9 / 11, 1 of 2 replies 9 / 9.
    assert found.effective_pairs == pytest.approx(27 / 11 + 1)


def test_calibration_is_judged_at_the_temperature_of_other_prompts():
    # Prompt a: margin 1 won 3 of 4. Prompt b: margin 1 won 9 of 10. Each judged at the other's.
    def rankings(key, wins, losses):
        return [example([1, 2], key=key)] * wins + [example([2, 1], key=key)] * losses

    examples = rankings("a", 3, 1) + rankings("b", 9, 1)
    found = evaluate_scores(examples, [torch.tensor([1.0, 0.0])] * 14)
    assert found.temperature == pytest.approx(1 / math.log(12 / 2), rel=1e-3)  # 12 of 14 won
    assert found.calibration_error == pytest.approx(0.9 - 0.75, abs=1e-4)


def test_a_turn_that_several_people_ranked_counts_once():
    one = evaluate_scores([example([1, 2, 3])], [torch.tensor([1.0, 0.0, 2.0])])
    three = evaluate_scores([example([1, 2, 3], weight=1 / 3)] * 3, [torch.tensor([1.0, 0, 2])] * 3)
    assert (three.pairs, three.right) == (9, 3)
    assert three.effective_pairs == pytest.approx(one.effective_pairs)
    assert three.loss == pytest.approx(one.loss)


def test_a_disputed_turn_has_the_mean_loss_of_its_rankings():
    scores = [torch.tensor([2.0, 0.0]), torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])]
    disputed = [example([1, 2], weight=0.5), example([2, 1], weight=0.5)]
    found = evaluate_scores([*disputed, example([1, 2])], scores)
    turn = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2
    assert found.loss == pytest.approx((turn + math.log1p(math.e)) / 2, abs=1e-5)


def test_nothing_held_out_is_no_accuracy():
    found = evaluate_scores([], [])
    assert (found.pairs, found.accuracy, found.loss, found.length_correlation) == (0, 0, 0, 0)


def test_folds_keep_a_prompt_together_and_are_balanced():
    keys = [f"p{number % 20}" for number in range(50)]
    folds = fold_of([example([1, 2], key=key) for key in keys])
    by_key = {key: {fold for k, fold in zip(keys, folds, strict=True) if k == key} for key in keys}
    assert all(len(found) == 1 for found in by_key.values())
    prompts_in = [sum(found == {fold} for found in by_key.values()) for fold in range(6)]
    assert sorted(prompts_in) == [3, 3, 3, 3, 4, 4]
    backwards = fold_of([example([1, 2], key=key) for key in reversed(keys)])
    assert backwards == folds[::-1]
    one = example([1, 2]).sequences[0]
    assert fold_of([LabelExample(one, 1.0, key) for key in keys]) == folds


def test_there_are_no_more_folds_than_prompts():
    assert set(fold_of([example([1, 2], key=key) for key in "aabb"])) == {0, 1}
    assert sorted(fold_of([example([1, 2])] * 3)) == [0, 1, 2]  # unnamed prompts are all different
