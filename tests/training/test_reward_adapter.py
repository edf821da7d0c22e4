"""The reward adapter: learns a planted preference, touches nothing else, is kept if it helps."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from planted import planted

from chatrlhf.errors import RoundError
from chatrlhf.models.base_model import BaseModel
from chatrlhf.settings import RewardSettings
from chatrlhf.training.reward import ranking_features, score_sequences
from chatrlhf.training.reward_adapter import evaluate_rankings, fit_reward_model, try_adapter
from chatrlhf.training.reward_data import fold_of
from chatrlhf.training.reward_evaluation import evaluate_scores
from chatrlhf.training.reward_head import fit_heads

SETTINGS = RewardSettings(learning_rate=2e-3, head_learning_rate=1e-2, epochs=4)


def test_a_planted_preference_is_learned_by_the_adapter(lab):
    model = lab.reward_model()
    held_out = planted(25, seed=2)
    faster = dataclasses.replace(SETTINGS, learning_rate=1e-2, head_learning_rate=2e-2)
    fit_reward_model(model, planted(60, seed=1), faster, seed=0)
    after = evaluate_rankings(model, held_out)
    assert after.pairs == 75
    assert after.accuracy > 0.9
    assert after.loss < 0.6 * math.log(6)


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


def test_the_loss_has_margins_and_counts_a_turn_once(lab):
    model = lab.reward_model(seed=5)
    pair, other = planted(2, seed=1, replies=2)
    gaps = []
    for one in (pair, other):
        scores = score_sequences(model, one.sequences, 2).tolist()
        gaps.append(scores[one.ranks.index(1)] - scores[one.ranks.index(2)])
    examples = [
        dataclasses.replace(pair, strength=5, weight=0.5),
        dataclasses.replace(pair, ranks=pair.ranks[::-1], weight=0.5),
        other,
    ]
    steps = []
    settings = dataclasses.replace(SETTINGS, strength_margin=0.8, rankings_per_batch=3, epochs=1)
    fit_reward_model(model, examples, settings, 0, steps.append)
    terms = [math.log1p(math.exp(-x)) for x in (gaps[0] - 0.8, -gaps[0], gaps[1])]
    expected = (0.5 * terms[0] + 0.5 * terms[1] + terms[2]) / 2
    assert steps[0].loss == pytest.approx(expected, abs=1e-4)


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


def test_running_out_of_memory_halves_the_rankings_at_once_and_changes_nothing(
    make_lab, monkeypatch
):
    whole, cut = (make_lab().reward_model() for _ in range(2))
    fit_reward_model(whole, planted(8, seed=1), SETTINGS, 0)
    body, rows = BaseModel.body, []

    def failing(self, input_ids, *arguments, **options):
        rows.append(input_ids.shape[0])
        if input_ids.shape[0] > 6:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return body(self, input_ids, *arguments, **options)

    monkeypatch.setattr(BaseModel, "body", failing)
    fit_reward_model(cut, planted(8, seed=1), SETTINGS, 0)
    assert rows[:2] == [12, 6]  # four rankings of three replies, then two
    assert set(rows[1:]) == {6}
    assert torch.allclose(cut.head.weight, whole.head.weight, atol=1e-4)
    ours, theirs = cut.lora_parameters(), whole.lora_parameters()
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(ours, theirs, strict=True))


def test_evaluating_a_model_is_evaluating_its_scores(lab):
    model = lab.reward_model(seed=3)
    examples = planted(5, seed=1)
    scores = [score_sequences(model, one.sequences, 8) for one in examples]
    found, expected = evaluate_rankings(model, examples), evaluate_scores(examples, scores)
    assert found.right == expected.right
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)


def test_a_trial_judges_both_on_the_fold_that_neither_saw(lab):
    model = lab.reward_model()
    examples = planted(30, seed=1)
    features = ranking_features(model, examples)
    trial = try_adapter(model, examples, features, 0.1, SETTINGS, seed=0)
    fold = fold_of(examples)
    held_out = [one for one, its in zip(examples, fold, strict=True) if its == 0]
    assert trial.examples == held_out
    train = [index for index, its in enumerate(fold) if its != 0]
    for own, evaluation in ((features, trial.frozen), (trial.features, trial.trained)):
        heads = fit_heads([examples[i] for i in train], [own[i] for i in train], SETTINGS, 0.1, 0)
        scores = [heads.scores(own[i]) for i in range(30) if i not in train]
        assert evaluation == evaluate_scores(held_out, scores)
    assert trial.helped == (trial.trained.loss < trial.frozen.loss)
    again = ranking_features(model, examples)
    assert all(torch.equal(a, b) for a, b in zip(again, trial.features, strict=True))
    assert not torch.allclose(trial.features[0], features[0], atol=1e-4)
