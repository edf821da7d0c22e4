"""Reward fitting: a planted preference is learned, and measured as by hand."""

from __future__ import annotations

import dataclasses
import math
from itertools import permutations
from statistics import pvariance

import pytest
import torch

from chatrlhf.errors import RoundError
from chatrlhf.settings import RewardSettings
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward import (
    RankingExample,
    evaluate_rankings,
    evaluate_scores,
    fit_head,
    fit_reward_model,
    fold_of,
    normalise,
    ranking_features,
    score_sequences,
)

LIKED = 150
SETTINGS = RewardSettings(learning_rate=2e-3, head_learning_rate=1e-2, epochs=4)


def planted(count, seed, replies=3):
    """Rankings of people who like the token ``LIKED``: the more of it, the better."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tokens):
        return torch.randint(160, 310, (tokens,), generator=generator).tolist()

    found = []
    for _ in range(count):
        prompt = draw(4)
        ranks = (torch.randperm(replies, generator=generator) + 1).tolist()
        sequences = []
        for rank in ranks:
            reply = draw(6)
            for place in torch.randperm(6, generator=generator)[: 2 * (replies - rank)].tolist():
                reply[place] = LIKED
            sequences.append(TokenSequence.of_reply(prompt, reply))
        found.append(RankingExample(tuple(sequences), tuple(ranks), (6,) * replies))
    return found


def example(ranks, lengths=None, key=""):
    """A ranking whose sequences do not matter."""
    sequences = tuple(TokenSequence.of_reply([9], [5]) for _ in ranks)
    return RankingExample(sequences, tuple(ranks), tuple(lengths or [1] * len(ranks)), key)


def test_a_planted_preference_is_learned_by_the_head_on_frozen_features(lab):
    model = lab.reward_model()
    examples = planted(60, seed=1)
    found = fit_head(model.head, examples, ranking_features(model, examples))
    assert (found.rankings, found.pairs) == (60, 180)
    assert found.accuracy > 0.8
    unseen = evaluate_rankings(model, planted(60, seed=2))
    assert unseen.accuracy > 0.8
    assert unseen.loss < 0.75 * math.log(6)  # guessing among the 3! orders


def test_a_planted_preference_is_learned_by_the_adapter(lab):
    model = lab.reward_model()
    held_out = planted(25, seed=2)
    faster = dataclasses.replace(SETTINGS, learning_rate=1e-2, head_learning_rate=2e-2)
    fit_reward_model(model, planted(60, seed=1), faster, seed=0)
    after = evaluate_rankings(model, held_out)
    assert after.pairs == 75
    assert after.accuracy > 0.9
    assert after.loss < 0.6 * math.log(6)


def test_what_a_prompt_taught_does_not_leak_into_its_own_evaluation(lab):
    # Each prompt was ranked twice, the same way, for no reason: by heart or not at all.
    examples = []
    for index, one in enumerate(planted(30, seed=1, replies=2)):
        ranks = (
            (1, 2)
            if torch.rand(1, generator=torch.Generator().manual_seed(index)) < 0.5
            else (2, 1)
        )
        examples += [dataclasses.replace(one, ranks=ranks, prompt_key=f"prompt {index}")] * 2
    model = lab.reward_model()
    found = fit_head(model.head, examples, ranking_features(model, examples))
    assert 0.25 < found.accuracy < 0.75
    assert evaluate_rankings(model, examples).accuracy > found.accuracy + 0.15


def test_the_fitted_head_is_the_minimum_of_the_penalised_plackett_luce_loss(lab):
    model = lab.reward_model()
    examples = planted(12, seed=1)
    features = ranking_features(model, examples)
    fit_head(model.head, examples, features)
    rows = torch.cat(features).double()
    standard = (rows - rows.mean(0)) / rows.std(0)
    weight = model.head.weight.detach().double().requires_grad_()
    total = 0.0
    for place, one in enumerate(examples):
        scores = standard[3 * place : 3 * place + 3] @ weight
        order = sorted(range(3), key=lambda reply: one.ranks[reply])
        total = total + scores[order].flip(0).logcumsumexp(0).flip(0).sub(scores[order]).sum()
    slopes = []
    for ridge in (0.01, 0.1, 1.0):
        loss = total / len(examples) + ridge * weight.square().sum()
        (slope,) = torch.autograd.grad(loss, weight, retain_graph=True)
        slopes.append(slope.norm().item())
    assert min(slopes) < 1e-3


def test_folds_keep_a_prompt_together_and_are_balanced():
    keys = [f"p{number % 20}" for number in range(50)]
    folds = fold_of([example([1, 2], key=key) for key in keys])
    by_key = {key: {fold for k, fold in zip(keys, folds, strict=True) if k == key} for key in keys}
    assert all(len(found) == 1 for found in by_key.values())
    prompts_in = [sum(found == {fold} for found in by_key.values()) for fold in range(6)]
    assert sorted(prompts_in) == [3, 3, 3, 3, 4, 4]
    backwards = fold_of([example([1, 2], key=key) for key in reversed(keys)])
    assert backwards == folds[::-1]


def test_there_are_no_more_folds_than_prompts():
    assert set(fold_of([example([1, 2], key=key) for key in "aabb"])) == {0, 1}
    assert sorted(fold_of([example([1, 2])] * 3)) == [0, 1, 2]  # unnamed prompts are all different


def test_fitting_touches_only_the_reward_models_adapter_and_head(lab):
    lab.adapter("other", seed=3)
    model = lab.reward_model()
    before = {name: lab.bank.fingerprint(name) for name in lab.bank.names}
    head = model.head.state()
    fit_reward_model(model, planted(4, seed=1), SETTINGS, seed=0)
    changed = {name for name in lab.bank.names if lab.bank.fingerprint(name) != before[name]}
    assert changed == {"reward"}
    after = model.head.state()
    moved = {key for key in after if not torch.equal(after[key], head[key])}
    assert moved <= {"weight", "bias"}
    assert "weight" in moved


def test_the_first_steps_loss_is_the_plackett_luce_loss_of_its_scores(lab):
    model = lab.reward_model(seed=5)
    (one,) = planted(1, seed=1)
    scores = score_sequences(model, one.sequences, 2).tolist()
    order = sorted(range(3), key=lambda place: one.ranks[place])
    expected = -sum(
        scores[place] - math.log(sum(math.exp(scores[later]) for later in order[at:]))
        for at, place in enumerate(order)
    )
    steps = []
    fit_reward_model(model, [one], SETTINGS, 0, steps.append)
    assert steps[0].loss == pytest.approx(expected, abs=1e-4)
    assert [(step.step, step.steps) for step in steps] == [(at, 4) for at in range(1, 5)]


def test_divergence_is_an_error_that_says_what_to_do(lab):
    settings = dataclasses.replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(RoundError, match=r"Lower reward\.learning_rate"):
        fit_reward_model(lab.reward_model(), planted(8, seed=1), settings, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-3},
        {"head_learning_rate": 1e-3},
        {"epochs": 1},
        {"rankings_per_batch": 2},
        {"weight_decay": 0.5},
        {"max_grad_norm": 1e-6},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_changes_the_result(make_lab, change):
    def fitted(settings):
        model = make_lab().reward_model()
        fit_reward_model(model, planted(8, seed=1), settings, 0)
        return score_sequences(model, planted(1, seed=2)[0].sequences, 4)

    short = dataclasses.replace(SETTINGS, epochs=2)  # at least two, as the head starts at zero
    assert not torch.equal(fitted(dataclasses.replace(short, **change)), fitted(short))


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


@pytest.mark.parametrize("replies", [2, 3, 4, 5])
def test_effective_pairs_have_the_variance_of_guessed_orders(replies):
    scores = torch.arange(replies, 0, -1).float()
    shares = []
    for order in permutations(range(1, replies + 1)):
        right = sum(order[i] < order[j] for i in range(replies) for j in range(i + 1, replies))
        shares.append(right / math.comb(replies, 2))
    found = evaluate_scores([example(range(1, replies + 1))], [scores])
    # n independent fair coins have a share of heads with variance 1 / (4 n).
    assert found.effective_pairs == pytest.approx(1 / (4 * pvariance(shares)))


def test_evaluating_a_model_is_evaluating_its_scores(lab):
    model = lab.reward_model(seed=3)
    examples = planted(5, seed=1)
    scores = [score_sequences(model, one.sequences, 8) for one in examples]
    found, expected = evaluate_rankings(model, examples), evaluate_scores(examples, scores)
    assert found.right == expected.right
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)


def test_nothing_held_out_is_no_accuracy():
    found = evaluate_scores([], [])
    assert (found.pairs, found.accuracy, found.loss, found.length_correlation) == (0, 0, 0, 0)


def test_scores_do_not_depend_on_the_micro_batch(lab):
    model = lab.reward_model(seed=3)
    sequences = [one for example in planted(3, 1) for one in example.sequences]
    sequences.append(TokenSequence.of_reply([70] * 9, [80] * 12))
    whole = score_sequences(model, sequences, 100)
    assert torch.allclose(score_sequences(model, sequences, 3), whole, atol=1e-5)
    assert score_sequences(model, [], 3).shape == (0,)


def test_normalised_scores_have_mean_zero_and_standard_deviation_one(lab):
    model = lab.reward_model(seed=3)
    sequences = [one for example in planted(8, 1) for one in example.sequences]
    before = score_sequences(model, sequences, 16)
    for _ in range(2):  # a second time starts from the raw scores again
        normalise(model, sequences, 16)
        after = score_sequences(model, sequences, 16)
        assert after.mean().item() == pytest.approx(0.0, abs=1e-5)
        assert after.std().item() == pytest.approx(1.0, abs=1e-4)
        expected = (before - before.mean()) / before.std()
        assert torch.allclose(after, expected, atol=1e-4)


def test_normalising_over_a_single_reply_leaves_the_scores_as_they_are(lab):
    model = lab.reward_model(seed=3)
    one = [planted(1, 1)[0].sequences[0]]
    before = score_sequences(model, one, 1)
    normalise(model, one, 1)
    assert torch.equal(score_sequences(model, one, 1), before)
