"""The ranking term: a planted preference is learned, judged honestly, and bagged."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from planted import example, planted

from chatrlhf.settings import RewardSettings
from chatrlhf.training.reward import ranking_features
from chatrlhf.training.reward_data import fold_of
from chatrlhf.training.reward_evaluation import evaluate_scores
from chatrlhf.training.reward_head import cross_validate, fit_heads

ONE = RewardSettings(ensemble=1)
FIVE = RewardSettings(ensemble=5)
WIDTH = 21


def drawn(examples, seed=0):
    """Features that know nothing of the ranks."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(one.ranks), WIDTH, generator=generator) for one in examples]


def random_rankings(count, seed=0, replies=3):
    generator = torch.Generator().manual_seed(seed)
    orders = [(torch.randperm(replies, generator=generator) + 1).tolist() for _ in range(count)]
    return [example(ranks, key=f"prompt {index}") for index, ranks in enumerate(orders)]


def test_a_planted_preference_is_learned(lab):
    model = lab.reward_model()
    examples, unseen = planted(60, seed=1), planted(60, seed=2)
    features = ranking_features(model, examples)
    ridge, scores = cross_validate(examples, features, FIVE, seed=0)
    found = evaluate_scores(examples, scores)
    assert (found.rankings, found.pairs) == (60, 180)
    assert found.accuracy > 0.8
    heads = fit_heads(examples, features, FIVE, ridge, seed=0)
    new = [heads.scores(own) for own in ranking_features(model, unseen)]
    later = evaluate_scores(unseen, new)
    assert later.accuracy > 0.8
    assert later.loss < 0.75 * math.log(6)  # guessing among the 3! orders


def test_what_a_prompt_taught_does_not_leak_into_its_own_evaluation(lab):
    # Each prompt was ranked twice, the same way, for no reason: by heart or not at all.
    examples = []
    for index, one in enumerate(planted(30, seed=1, replies=2)):
        coin = torch.rand(1, generator=torch.Generator().manual_seed(index)) < 0.5
        ranks = (1, 2) if coin else (2, 1)
        examples += [dataclasses.replace(one, ranks=ranks, prompt_key=f"prompt {index}")] * 2
    features = ranking_features(lab.reward_model(), examples)
    _, scores = cross_validate(examples, features, FIVE, seed=0)
    honest = evaluate_scores(examples, scores).accuracy
    assert 0.25 < honest < 0.75
    heads = fit_heads(examples, features, FIVE, 0.01, seed=0)
    by_heart = evaluate_scores(examples, [heads.scores(own) for own in features])
    assert by_heart.accuracy > honest + 0.15


def test_a_head_is_the_minimum_of_the_penalised_loss_with_margins_and_weights():
    examples = [
        dataclasses.replace(one, strength=strength, weight=weight)
        for one, strength, weight in zip(
            random_rankings(12), [None, 1, 2, 3, 4, 5] * 2, [1.0, 0.5, 0.25] * 4, strict=True
        )
    ]
    features = drawn(examples)
    settings = RewardSettings(ensemble=1, strength_margin=2.0)
    heads = fit_heads(examples, features, settings, ridge=0.1, seed=0)
    rows = torch.cat(features).double()
    standard = (rows - rows.mean(0)) / rows.std(0)
    standard[:, : WIDTH // 3] *= 0.3
    weight = heads.weights[0].double().requires_grad_()
    loss = 0.1 * weight.square().sum()
    for place, one in enumerate(examples):
        scores = standard[3 * place : 3 * place + 3] @ weight
        margin = 0.0 if one.strength is None else (one.strength - 1) / 2
        order = sorted(range(3), key=lambda reply: one.ranks[reply])
        share = one.weight / sum(other.weight for other in examples)
        for at, winner in enumerate(order[:-1]):
            worse = torch.stack([scores[other] + margin for other in order[at + 1 :]])
            everybody = torch.cat([scores[winner][None], worse]).logsumexp(0)
            loss = loss + share * (everybody - scores[winner])
    (slope,) = torch.autograd.grad(loss, weight)
    assert slope.norm().item() < 1e-3
    assert weight.norm().item() > 0.1


def test_the_ridge_is_that_with_the_least_loss_out_of_fold():
    examples = random_rankings(24)
    features = drawn(examples)
    ridge, scores = cross_validate(examples, features, ONE, seed=0)
    fold = fold_of(examples)
    losses = {}
    for tried in (0.01, 0.1, 1.0, 10.0):
        own = [torch.zeros(0)] * 24
        for one in set(fold):
            inside = [i for i in range(24) if fold[i] != one]
            heads = fit_heads(
                [examples[i] for i in inside], [features[i] for i in inside], ONE, tried, seed=0
            )
            for i in range(24):
                if fold[i] == one:
                    own[i] = heads.scores(features[i])
        losses[tried] = evaluate_scores(examples, own).loss
        if tried == ridge:
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(own, scores, strict=True))
    assert min(losses, key=losses.get) == ridge


def test_a_surer_person_moves_the_scores_further_apart():
    examples = random_rankings(16, replies=2)
    features = drawn(examples)

    def gap(strength):
        marked = [dataclasses.replace(one, strength=strength) for one in examples]
        heads = fit_heads(marked, features, ONE, ridge=0.1, seed=0)
        return sum(
            float((heads.scores(own) * torch.tensor([1.0, -1.0])).sum())
            * (1 if r == (1, 2) else -1)
            for own, r in zip(features, [tuple(one.ranks) for one in examples], strict=True)
        )

    assert gap(None) == pytest.approx(gap(1))
    assert gap(1) < gap(3) < gap(5)
    without = RewardSettings(ensemble=1, strength_margin=0.0)
    heads = [
        fit_heads(
            [dataclasses.replace(one, strength=s) for one in examples], features, without, 0.1, 0
        )
        for s in (1, 5)
    ]
    assert torch.equal(heads[0].weights, heads[1].weights)


def test_a_turn_counts_once_however_many_people_ranked_it_alike():
    examples = random_rankings(10)
    features = drawn(examples)
    once = fit_heads(examples, features, ONE, 0.1, seed=0)
    five = [dataclasses.replace(examples[0], weight=0.2)] * 5 + examples[1:]
    often = fit_heads(five, [features[0]] * 5 + features[1:], ONE, 0.1, 0, once.scale)
    assert torch.allclose(often.weights, once.weights, atol=1e-4)
    louder = [examples[0]] * 5 + examples[1:]
    heavy = fit_heads(louder, [features[0]] * 5 + features[1:], ONE, 0.1, 0, once.scale)
    assert not torch.allclose(heavy.weights, once.weights, atol=1e-2)


def contradicted(replies):
    """Every turn ranked by two people who mean the opposite."""
    one_side = random_rankings(8, replies=replies)
    examples, features = [], []
    for one, own in zip(one_side, drawn(one_side), strict=True):
        opposite = tuple(replies + 1 - rank for rank in one.ranks)
        examples += [one, dataclasses.replace(one, ranks=opposite)]
        features += [own, own]
    return examples, features


def test_two_people_who_contradict_each_other_on_pairs_leave_no_preference():
    examples, features = contradicted(replies=2)
    heads = fit_heads(examples, features, FIVE, 0.1, seed=0)
    assert heads.weights.abs().max() < 1e-6


def test_contradicted_rankings_are_predicted_half_the_time():
    examples, features = contradicted(replies=3)
    _, scores = cross_validate(examples, features, FIVE, seed=0)
    found = evaluate_scores(examples, scores)
    assert found.right == found.pairs / 2
    # Plackett-Luce is not symmetric under reversal, so the middle reply is liked a little.
    heads = fit_heads(examples, features, ONE, 0.1, seed=0)
    agreed = fit_heads(examples[::2], features[::2], ONE, 0.1, seed=0)
    assert heads.weights.norm() < 0.2 * agreed.weights.norm()


def test_an_ensemble_is_fitted_to_resampled_prompts():
    examples = random_rankings(20)
    features = drawn(examples)
    heads = fit_heads(examples, features, FIVE, 0.1, seed=0)
    assert heads.weights.shape == (5, WIDTH)
    assert torch.pdist(heads.weights).min() > 1e-2
    again = fit_heads(examples, features, FIVE, 0.1, seed=0)
    assert torch.equal(again.weights, heads.weights)
    other = fit_heads(examples, features, FIVE, 0.1, seed=1)
    assert not torch.allclose(other.weights, heads.weights, atol=1e-2)
    own = features[0]
    scores = torch.stack([(heads.scale(own) * weight).sum(-1) for weight in heads.weights])
    assert torch.allclose(heads.scores(own), scores.mean(0), atol=1e-5)
    assert torch.allclose(heads.mean_head()(own), scores.mean(0), atol=1e-5)


def test_a_prompt_is_drawn_with_all_its_rankings_or_not_at_all():
    # Two prompts: a member sees both, or one of them only, and then fits that one perfectly.
    examples = [example([1, 2], key="a"), example([1, 2], key="a"), example([2, 1], key="b")]
    own = torch.eye(2, WIDTH)
    features = [own, own, own]
    fives = [fit_heads(examples, features, FIVE, 0.1, seed=seed) for seed in range(4)]
    gaps = {
        round(float(gap), 2)
        for heads in fives
        for gap in [(heads.scale(own) @ weight).diff() for weight in heads.weights]
    }
    assert len(gaps) == 3


def test_the_ensembles_members_are_further_apart_with_fewer_rankings():
    taste = torch.randn(WIDTH, generator=torch.Generator().manual_seed(9))
    (unseen,) = drawn([example(range(40))], seed=7)
    spreads = []
    for count in (12, 192):
        features = drawn([example([1, 2, 3])] * count, seed=count)
        examples = [
            example((-(own @ taste)).argsort().argsort().add(1).tolist()) for own in features
        ]
        heads = fit_heads(examples, features, FIVE, 0.1, seed=0)
        members = heads.scale(unseen) @ heads.weights.T
        spreads.append(float((members.std(-1) / members.mean(-1).std()).mean()))
    assert spreads[1] < 0.5 * spreads[0]
