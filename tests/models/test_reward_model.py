"""Scalar heads: where they read, what they start from, and that saving keeps every score."""

from __future__ import annotations

import math

import pytest
import torch
from serving import random_lora
from tiny_model import write_tiny_model

from chatrlhf.errors import VersionError
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_model import RewardModel, ScalarHead, ValueModel, pooled_features
from chatrlhf.training.batches import TokenSequence, make_batch

SEQUENCES = [
    TokenSequence.of_reply([5, 6, 7], [80, 90, 100, 110]),
    TokenSequence.of_reply([8, 9], [30]),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("m"), hidden=32)
    base = load_base_model(folder, quantization="fp32", device="cpu")
    bank = LoraBank(base.model, 4, 4.0)
    for name in ("reward", "value"):
        bank.add(name, trainable=True)
        bank.load_state(name, random_lora(bank, 3))
    return base, bank


def moved_head(size, seed=1):
    """A head as it is after a fit: every tensor away from where it started."""
    head = ScalarHead(size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(3 * size, generator=generator) * 0.2)
        head.feature_mean.copy_(torch.randn(3 * size, generator=generator))
        head.feature_scale.copy_(torch.rand(3 * size, generator=generator) + 0.5)
        head.bias.fill_(0.3)
    return head


def score_by_hand(base, head, prompt, response):
    """The score of one reply, from the definition; call it with the adapter active."""
    layers = base.decoder(
        input_ids=torch.tensor([[*prompt, *response]]), output_hidden_states=True
    ).hidden_states
    # The embeddings, then the layers: of two layers the first is the middle one.
    middle, hidden = layers[1][0], layers[-1][0]
    features = torch.cat(
        [hidden[-1], middle[len(prompt) :].mean(0), 0.01 * hidden[len(prompt) :].sum(0)]
    )
    standardised = (features - head.feature_mean) * head.feature_scale
    return float(standardised @ head.weight) + 0.3


@torch.no_grad()
def scores(model):
    batch = make_batch(SEQUENCES, 0)
    return model.scores(batch.token_ids, batch.is_response_token, batch.last_token)


def test_head_by_hand():
    head = ScalarHead(1)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([2.0, -1.0, 0.5]))
        head.bias.fill_(0.5)
        head.feature_mean.copy_(torch.tensor([1.0, 0.0, -2.0]))
        head.feature_scale.copy_(torch.tensor([2.0, 1.0, 0.5]))
    # Standardised: (3 - 1) 2 = 4, 1, (2 + 2) / 2 = 2; 8 - 1 + 1 + .5.
    assert head(torch.tensor([[3.0, 1.0, 2.0]])).tolist() == [8.5]


def test_a_new_head_says_zero():
    assert ScalarHead(4)(torch.randn(5, 12)).tolist() == [0.0] * 5


def test_features_by_hand():
    hidden = torch.tensor([[[1.0], [10.0], [20.0], [math.nan]], [[1.0], [2.0], [3.0], [5.0]]])
    is_response = torch.tensor([[False, True, True, False], [False, True, False, True]])
    middle = torch.tensor([[[9.0], [1.0], [3.0], [math.nan]], [[9.0], [4.0], [9.0], [8.0]]])
    found = pooled_features(hidden, middle, is_response)
    # The state itself; the mean of the middle states of the response so far, zero before the
    # first; the sum of the response's states.
    expected = [
        [[1.0, 0.0, 0.0], [10.0, 1.0, 0.1], [20.0, 2.0, 0.3]],
        [[1.0, 0.0, 0.0], [2.0, 4.0, 0.02], [3.0, 4.0, 0.02], [5.0, 6.0, 0.07]],
    ]
    assert torch.allclose(found[0, :3], torch.tensor(expected[0]))
    assert torch.allclose(found[1], torch.tensor(expected[1]))


def test_scores_read_the_reply_whatever_the_padding(parts):
    base, bank = parts
    head = moved_head(base.hidden_size)
    found = scores(RewardModel(base, bank, "reward", head))
    with torch.no_grad(), bank.using("reward"):
        expected = [
            score_by_hand(base, head, [5, 6, 7], [80, 90, 100, 110]),
            score_by_hand(base, head, [8, 9], [30]),
        ]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_state_is_a_copy():
    head = moved_head(4)
    kept = head.state()
    with torch.no_grad():
        head.weight.add_(1.0)
        head.feature_mean.add_(1.0)
    assert torch.equal(kept["weight"], moved_head(4).weight)
    assert torch.equal(kept["feature_mean"], moved_head(4).feature_mean)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_head_that_does_not_fit_is_refused(change):
    state = ScalarHead(4).state()
    if change == "missing":
        del state["bias"]
    elif change == "unknown":
        state["other"] = torch.zeros(1)
    else:
        state["weight"] = torch.zeros(5)
    with pytest.raises(VersionError, match="does not fit"):
        ScalarHead(4).load(state)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["weight", "bias", "feature_mean", "feature_scale"])
def test_a_head_with_a_value_that_is_not_finite_is_refused_and_nothing_is_copied(key, value):
    head = moved_head(4)
    state = moved_head(4, seed=2).state()
    state[key] = torch.full_like(state[key], value)
    with pytest.raises(VersionError, match=f"{key} holds values that are not finite"):
        head.load(state)
    assert all(
        torch.equal(now, was)
        for now, was in zip(head.state().values(), moved_head(4).state().values(), strict=True)
    )


@torch.no_grad()
def test_a_critic_copied_from_the_reward_model_says_its_score_at_the_last_position(parts):
    base, bank = parts
    reward = RewardModel(base, bank, "reward", moved_head(base.hidden_size))
    bank.copy("reward", "value")
    head = ScalarHead(base.hidden_size)
    head.load(reward.head.state())
    critic = ValueModel(base, bank, "value", head)
    batch = make_batch(SEQUENCES, 0)
    at_end = torch.zeros_like(batch.is_token)
    at_end[torch.arange(len(SEQUENCES)), batch.last_token] = True
    assert torch.allclose(
        critic.values(batch.token_ids, batch.is_response_token, at_end), scores(reward), atol=1e-6
    )


@torch.no_grad()
def test_values_come_one_a_response_token_in_row_major_order(parts):
    base, bank = parts
    critic = ValueModel(base, bank, "value", moved_head(base.hidden_size))
    batch = make_batch(SEQUENCES, 0)
    together = critic.values(batch.token_ids, batch.is_response_token, batch.predicts_response)
    single = [
        critic.values(one.token_ids, one.is_response_token, one.predicts_response)
        for one in (make_batch([sequence], 0) for sequence in SEQUENCES)
    ]
    assert together.shape == (5,)
    assert torch.allclose(together, torch.cat(single), atol=1e-5)


def test_training_moves_weight_and_bias_but_not_the_feature_statistics(parts):
    base, bank = parts
    critic = ValueModel(base, bank, "value", moved_head(base.hidden_size))
    batch = make_batch(SEQUENCES, 0)
    critic.values(
        batch.token_ids, batch.is_response_token, batch.predicts_response
    ).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.parameters())
    trainable = {id(p) for p in critic.parameters()}
    assert {id(critic.head.weight), id(critic.head.bias)} <= trainable
    assert not {id(buffer) for buffer in critic.head.buffers()} & trainable
    for parameter in critic.parameters():
        parameter.grad = None
