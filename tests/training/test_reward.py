"""Reward fitting: a planted preference is learned, and measured as by hand."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from chatrlhf.errors import RoundError
from chatrlhf.settings import RewardSettings
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward import (
    RankingExample,
    evaluate_rankings,
    fit_reward_model,
    normalise,
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


class LastTokenModel:
    """A reward model whose score is the last token's id."""

    base = SimpleNamespace(chat_format=SimpleNamespace(pad_token_id=0), device=torch.device("cpu"))

    def scores(self, token_ids, last_token):
        return token_ids[torch.arange(len(token_ids)), last_token].float()


def example(scores, ranks, lengths):
    sequences = [
        TokenSequence.of_reply([9], [5] * (length - 1) + [score])
        for score, length in zip(scores, lengths, strict=True)
    ]
    return RankingExample(tuple(sequences), tuple(ranks), tuple(lengths))


def test_a_planted_preference_is_learned_and_holds_on_unseen_rankings(lab):
    model = lab.reward_model()
    held_out = planted(25, seed=2)
    before = evaluate_rankings(model, held_out)
    faster = dataclasses.replace(SETTINGS, learning_rate=1e-2, head_learning_rate=2e-2)
    fit_reward_model(model, planted(60, seed=1), faster, seed=0)
    after = evaluate_rankings(model, held_out)
    assert after.pairs == 75
    assert before.accuracy < 0.75
    assert after.accuracy > 0.9
    assert after.loss < 0.6 * math.log(6)  # guessing among the 3! orders


def test_fitting_touches_only_the_reward_models_adapter_and_head(lab):
    lab.adapter("other", seed=3)
    model = lab.reward_model()
    before = {name: lab.bank.fingerprint(name) for name in lab.bank.names}
    head = model.head.state()
    fit_reward_model(model, planted(4, seed=1), SETTINGS, seed=0)
    changed = {name for name in lab.bank.names if lab.bank.fingerprint(name) != before[name]}
    assert changed == {"reward"}
    after = model.head.state()
    assert not torch.equal(after["weight"], head["weight"])
    assert after["mean"] == 0.0
    assert after["std"] == 1.0


def test_fitting_scales_the_heads_inputs_to_root_mean_square_one(lab):
    model = lab.reward_model(seed=5)
    (one,) = planted(1, seed=1)
    with torch.no_grad(), lab.bank.using("reward"):
        ids = torch.tensor([s.token_ids for s in one.sequences])
        hidden = lab.base.body(ids).last_hidden_state[:, -1]
    fit_reward_model(model, [one], SETTINGS, seed=0)
    size = (hidden * model.head.input_scale).square().mean().sqrt()
    assert size.item() == pytest.approx(1.0, abs=1e-5)


def test_the_first_steps_loss_is_the_plackett_luce_loss_of_its_scores(lab):
    model = lab.reward_model(seed=5)
    (one,) = planted(1, seed=1)
    with torch.no_grad(), lab.bank.using("reward"):
        hidden = torch.stack(
            [
                lab.base.body(torch.tensor([s.token_ids])).last_hidden_state[0, -1]
                for s in one.sequences
            ]
        )
        scores = (hidden / hidden.square().mean().sqrt() @ model.head.weight).tolist()
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

    short = dataclasses.replace(SETTINGS, epochs=2)
    assert not torch.equal(fitted(dataclasses.replace(short, **change)), fitted(short))


def test_evaluation_by_hand():
    found = evaluate_rankings(
        LastTokenModel(),
        [
            example([13, 12, 11], ranks=[1, 3, 2], lengths=[2, 4, 6]),  # 2 of 3 right
            example([11, 12], ranks=[1, 1], lengths=[3, 3]),  # a tie compares nothing
            example([14, 11], ranks=[1, 2], lengths=[5, 1]),  # 1 of 1
        ],
    )
    assert (found.pairs, found.right) == (4, 3)
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


def test_nothing_held_out_is_no_accuracy():
    found = evaluate_rankings(LastTokenModel(), [])
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
