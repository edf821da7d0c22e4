"""A label as a logistic head: learned, judged out of fold, not used when it is chance."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from planted import planted, planted_labels

from chatrlhf.models.reward_terms import FeatureScale
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.label_head import class_counts, fit_label_head
from chatrlhf.training.reward import read_features
from chatrlhf.training.reward_data import LabelExample

ANY = TokenSequence.of_reply([9], [5])


def labelled(targets, keys=None):
    keys = keys or [f"prompt {index}" for index in range(len(targets))]
    return [LabelExample(ANY, target, key) for target, key in zip(targets, keys, strict=True)]


def noise(rows, width=12, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def fit(examples, features):
    return fit_label_head(examples, features, FeatureScale.of(features))


def test_a_planted_label_is_learned_and_orders_new_replies(lab):
    model = lab.reward_model()
    examples = planted_labels(60, seed=1, positives=0.3)
    features = read_features(model, [one.sequence for one in examples], 16)
    scale = FeatureScale.of(features)
    found = fit_label_head(examples, features, scale)
    assert (found.positives, found.negatives) == (18, 42)
    assert found.area > 0.9
    assert found.is_better_than_chance
    right = 0
    for one in planted(40, seed=2, replies=2):
        logits = scale(read_features(model, one.sequences, 2)) @ found.weight
        right += int(logits.argmax()) == one.ranks.index(1)
    assert right >= 34


def test_the_head_is_the_minimum_of_the_weighted_logistic_loss():
    targets = [1.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.25]
    features = noise(10)
    found = fit(labelled(targets), features)
    rows = (features.double() - features.double().mean(0)) / features.double().std(0)
    rows[:, :4] *= 0.3
    share = sum(targets) / 10
    slopes = []
    for ridge in (0.01, 0.1, 1.0, 10.0):
        weight = found.weight.double().requires_grad_()
        bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
        for _ in range(200):  # the bias that goes with the weight, by Newton's method
            p = torch.sigmoid(rows @ weight.detach() + bias.detach())
            costs = [
                t / (2 * share) * (p_ - 1) + (1 - t) / (2 * (1 - share)) * p_
                for t, p_ in zip(targets, p, strict=True)
            ]
            curve = [
                (t / (2 * share) + (1 - t) / (2 * (1 - share))) * p_ * (1 - p_)
                for t, p_ in zip(targets, p, strict=True)
            ]
            bias = (bias.detach() - sum(costs) / sum(curve)).requires_grad_()
        loss = ridge * weight.square().sum()
        for target, logit in zip(targets, rows @ weight + bias, strict=True):
            p = torch.sigmoid(logit)
            loss = loss - target / (2 * share) * p.log() / 10
            loss = loss - (1 - target) / (2 * (1 - share)) * (1 - p).log() / 10
        slopes.append(torch.autograd.grad(loss, weight)[0].norm().item())
    assert min(slopes) < 1e-3


def test_a_label_given_at_random_is_chance():
    coins = torch.rand(40, generator=torch.Generator().manual_seed(5)) < 0.5
    found = fit(labelled([float(coin) for coin in coins]), noise(40))
    assert found.area < found.needed
    assert not found.is_better_than_chance


def test_a_prompt_does_not_vouch_for_itself():
    # All replies of a prompt look alike and have one label, given by a coin: learned by heart only.
    coins = torch.rand(12, generator=torch.Generator().manual_seed(2)) < 0.5
    base = noise(12)
    targets = [float(coin) for coin in coins for _ in range(4)]
    keys = [f"prompt {index}" for index in range(12) for _ in range(4)]
    features = base.repeat_interleave(4, 0) + 0.01 * noise(48, seed=1)
    found = fit(labelled(targets, keys), features)
    assert not found.is_better_than_chance
    logits = FeatureScale.of(features)(features) @ found.weight
    assert ((logits > logits.mean()) == (torch.tensor(targets) > 0.5)).float().mean() > 0.75


def test_what_chance_stays_below_counts_prompts_and_not_replies():
    targets = [1.0] * 6 + [0.0] * 6
    alone = fit(labelled(targets), noise(12))
    together = fit(labelled(targets, ["a"] * 3 + ["b"] * 3 + ["c"] * 3 + ["d"] * 3), noise(12))
    assert alone.needed == pytest.approx(0.5 + 1.96 * math.sqrt(13 / (12 * 36)))
    assert together.needed == pytest.approx(0.5 + 1.96 * math.sqrt(5 / (12 * 4)))
    assert together.needed > 1.0  # two prompts of each class can never be enough


def test_people_who_disagree_evenly_belong_to_neither_class():
    examples = labelled([1.0, 0.5, 0.75, 0.0, 0.25, 0.5])
    assert class_counts(examples) == (2, 2)
    found = fit(examples, noise(6))
    assert (found.positives, found.negatives) == (2, 2)
    assert 0.0 <= found.area <= 1.0


def test_a_class_that_lives_in_one_fold_only_is_no_evidence():
    targets = [1.0] * 8 + [0.0] * 8
    keys = ["x"] * 8 + [f"prompt {index}" for index in range(8)]
    found = fit(labelled(targets, keys), noise(16))
    assert not found.is_better_than_chance


def test_a_negative_label_is_the_mirror_of_the_positive():
    examples = labelled([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    mirrored = [dataclasses.replace(one, target=1 - one.target) for one in examples]
    one, other = fit(examples, noise(6)), fit(mirrored, noise(6))
    assert torch.allclose(one.weight, -other.weight, atol=1e-4)
