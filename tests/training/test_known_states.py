"""Adapters of equal weights share one forward pass, and PPO gives the same with and without it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from ppo_lab import SETTINGS, weights

from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import RewardModel, ValueModel
from chatrlhf.training import ppo, reward
from chatrlhf.training.ppo import PpoTrainer
from chatrlhf.training.reward import read_features, score_sequences


def head_only_round(lab, *, reward_seed=1, value_seed=1):
    """A trainer whose reward model and critic are heads on the adapter that PPO starts from."""
    policy = lab.policy(seed=1)
    model = RewardModel(lab.base, lab.bank, lab.adapter("reward", reward_seed), lab.head(3))
    critic = ValueModel(lab.base, lab.bank, lab.adapter("value", value_seed), lab.head(3))

    def scorer(rollout):
        return score_sequences(model, rollout.sequences, 100)

    settings = dataclasses.replace(SETTINGS, minibatches=1)
    return PpoTrainer(policy, critic, scorer, settings, seed=0, micro_batch=100), model


def passes(monkeypatch):
    """Adapters of the forward passes from here on."""
    found = []
    plain = Policy.hidden_states

    def counted(self, token_ids):
        found.append(self.adapter)
        return plain(self, token_ids)

    monkeypatch.setattr(Policy, "hidden_states", counted)
    for module in (ppo, reward):  # one part to a batch, whatever the machine
        monkeypatch.setattr(module, "cores", lambda _: 1)
    return found


def test_reward_and_trunk_read_the_pass_of_the_reference(lab, prompts, monkeypatch):
    found = passes(monkeypatch)
    trainer, _ = head_only_round(lab)
    trainer.iteration(prompts)
    assert found.count("policy-start") == 1
    assert found.count("reward") == 0
    # The upper half of the critic: kept from the measurement, then once an epoch.
    assert found.count("value") == SETTINGS.epochs


@pytest.mark.parametrize("other", ["reward", "value"])
def test_adapters_with_weights_of_their_own_have_passes_of_their_own(
    lab, prompts, monkeypatch, other
):
    found = passes(monkeypatch)
    trainer, _ = head_only_round(lab, **{f"{other}_seed": 2})
    trainer.iteration(prompts)
    assert found.count("policy-start") == 1
    assert found.count("reward") == (other == "reward")
    assert found.count("value") == SETTINGS.epochs + (other == "value")


def test_nothing_changes_but_the_work(make_lab, prompts, monkeypatch):
    shared, _ = head_only_round(make_lab())
    alone, _ = head_only_round(make_lab())
    for _ in range(2):
        stats, _, scores = shared.iteration(prompts)
        with monkeypatch.context() as patch:
            patch.setattr(
                LoraBank, "are_equal", lambda _self, one, other, _inside=None: one == other
            )
            theirs, _, their_scores = alone.iteration(prompts)
        assert torch.allclose(scores, their_scores, atol=1e-5)
        assert stats.kl == pytest.approx(theirs.kl, abs=1e-5)
    ours, others = weights(shared), weights(alone)
    assert all(torch.allclose(ours[name], others[name], atol=1e-4) for name in ours)


def test_states_are_let_go_before_anything_trains(lab, prompts):
    trainer, reward = head_only_round(lab)
    _, rollout, scores = trainer.iteration(prompts)
    assert lab.bank.known is None
    again = score_sequences(reward, rollout.sequences, 100)
    assert torch.allclose(again, scores, atol=1e-5)
    with torch.no_grad():  # the reward adapter is now another one
        for parameter in lab.bank.parameters_of("reward"):
            parameter.add_(0.1)
    assert not torch.allclose(score_sequences(reward, rollout.sequences, 100), scores, atol=1e-3)


def test_replies_that_were_not_seen_are_read(lab, prompts):
    trainer, reward = head_only_round(lab)
    trainer._actors.new_batch()
    batch = trainer._actors.batch(trainer._sample(prompts).sequences)
    trainer._actors.reference_logprobs(batch)
    other = trainer._sample([[7, 8, 9]]).sequences
    features = read_features(reward, other, 100)
    trainer._actors.forget()
    assert torch.allclose(features, read_features(reward, other, 100), atol=1e-5)
