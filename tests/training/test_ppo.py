"""PPO on a tiny model: the gradient, the penalties, the settings, and that a score rises."""

from __future__ import annotations

import pytest
import torch
from ppo_lab import (
    equal,
    gradients,
    logprobs_of,
    make_trainer,
    odd_share,
    values_of,
    weights,
)
from tiny_model import write_tiny_model

from chatrlhf.models.reward_model import RewardModel
from chatrlhf.settings import PpoSettings
from chatrlhf.training.ppo import PpoTrainer
from chatrlhf.training.reward import score_sequences


def test_the_first_gradient_is_reinforce_with_the_critic_as_baseline(lab, prompts):
    trainer = make_trainer(
        lab,
        epochs=1,
        minibatches=1,
        gae_lambda=1.0,
        kl_coefficient=0.0,
        kl_target=0.0,
        max_grad_norm=1e9,
        value_coefficient=0.3,
        micro_batch=3,
    )
    lab.adapter("before")
    lab.bank.copy("policy", "before")
    lab.adapter("value-before")
    lab.bank.copy("value", "value-before")
    critic = lab.critic(seed=2, name="baseline")
    _, rollout, scores = trainer.iteration(prompts)

    judged = torch.where(torch.tensor(rollout.finished), scores, torch.tensor(-1.0))
    pairs = list(zip(rollout.prompts, rollout.responses, strict=True))
    returns = torch.cat([score.expand(len(r)) for score, (_, r) in zip(judged, pairs, strict=True)])
    values = torch.cat([values_of(lab, critic, *pair) for pair in pairs])
    advantages = (returns - values).detach()
    advantages = (advantages - advantages.mean()) / advantages.std()
    logprobs = torch.cat([logprobs_of(lab, "before", *pair) for pair in pairs])
    (-(advantages * logprobs).mean()).backward()
    (0.3 * 0.5 * (values - returns).square().mean()).backward()

    for ours, theirs in [
        (lab.bank.parameters_of("policy"), lab.bank.parameters_of("before")),
        (trainer.critic.parameters(), critic.parameters()),
    ]:
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_micro_batches_give_the_gradient_of_the_whole_batch(make_lab, prompts):
    def fitted(micro_batch):
        trainer = make_trainer(
            make_lab(), micro_batch=micro_batch, epochs=1, minibatches=1, entropy_coefficient=0.1
        )
        stats, _, _ = trainer.iteration(prompts)
        return gradients(trainer), stats

    whole, whole_stats = fitted(100)
    parts, parts_stats = fitted(3)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)
    assert parts_stats.policy_loss == pytest.approx(whole_stats.policy_loss, abs=1e-5)
    assert parts_stats.value_loss == pytest.approx(whole_stats.value_loss, rel=1e-4)


def test_a_reply_that_does_not_end_gets_the_fixed_score(lab, prompts):
    trainer = make_trainer(lab, missing_eos_score=-3.5)
    stats, rollout, scores = trainer.iteration(prompts)
    ended = torch.tensor(rollout.finished)
    assert 0 < ended.sum() < len(ended)
    assert torch.equal(scores, odd_share(rollout))
    judged = torch.where(ended, scores, torch.tensor(-3.5))
    assert stats.reward == pytest.approx(judged.mean().item(), abs=1e-4)  # no KL yet
    assert stats.score == pytest.approx(scores.mean().item(), abs=1e-5)
    assert stats.finished == pytest.approx(ended.float().mean().item())
    assert stats.reply_tokens == pytest.approx(sum(map(len, rollout.responses)) / len(rollout))


def test_a_continuation_keeps_its_score_though_it_does_not_end(lab, prompts):
    trainer = make_trainer(lab, missing_eos_score=-3.5, score_unfinished=True)
    stats, rollout, scores = trainer.iteration(prompts)
    assert not all(rollout.finished)
    assert stats.reward == pytest.approx(scores.mean().item(), abs=1e-4)


def test_kl_and_its_penalty_are_summed_over_each_reply(lab, prompts):
    trainer = make_trainer(lab, kl_coefficient=0.2)
    trainer.iteration(prompts)
    lab.adapter("before", trainable=False)
    lab.bank.copy("policy", "before")
    beta = trainer.kl_coefficient
    stats, rollout, scores = trainer.iteration(prompts)
    with torch.no_grad():
        kl = [
            float((logprobs_of(lab, "before", *one) - logprobs_of(lab, "policy-start", *one)).sum())
            for one in zip(rollout.prompts, rollout.responses, strict=True)
        ]
    assert stats.kl == pytest.approx(sum(kl) / len(kl), abs=1e-4)
    assert abs(stats.kl) > 1e-3
    judged = torch.where(torch.tensor(rollout.finished), scores, torch.tensor(-1.0))
    expected = float(judged.mean()) - beta * sum(kl) / len(kl)
    assert stats.reward == pytest.approx(expected, abs=1e-4)
    assert stats.kl_coefficient == beta


def test_the_kl_coefficient_falls_while_the_policy_stays_below_its_target(lab, prompts):
    trainer = make_trainer(lab, kl_coefficient=0.1, kl_target=6.0, kl_horizon=100)
    trainer.iteration(prompts)
    assert trainer.kl_coefficient == pytest.approx(0.1 * (1 - 0.2 * 8 / 100))


def test_without_a_target_the_kl_coefficient_is_fixed(lab, prompts):
    trainer = make_trainer(lab, kl_coefficient=0.1, kl_target=0.0)
    trainer.iteration(prompts)
    assert trainer.kl_coefficient == 0.1


def test_updates_end_where_the_policy_has_moved_too_far(make_lab, prompts):
    def fitted(**changes):
        trainer = make_trainer(make_lab(), minibatches=1, learning_rate=1e-3, **changes)
        stats, _, _ = trainer.iteration(prompts)
        return trainer, stats

    free, all_made = fitted(epochs=4)
    assert (all_made.updates, all_made.updates_planned, all_made.stopped_early) == (4, 4, 0)
    # The first epoch cannot have moved; the second is looked at, found too far, and not made.
    stopped, stats = fitted(epochs=4, stop_kl=1e-9)
    assert (stats.updates, stats.updates_planned, stats.stopped_early) == (1, 4, 1)
    assert stats.approx_kl == 0.0
    assert stats.largest_approx_kl > 1e-9
    once, _ = fitted(epochs=1)
    assert equal(weights(stopped), weights(once))
    assert not equal(weights(stopped), weights(free))
    # With a limit between, more than one is made, and none beyond it.
    limit = all_made.largest_approx_kl / 2
    _, some = fitted(epochs=4, stop_kl=limit)
    assert 1 < some.updates < 4
    assert some.approx_kl <= limit < some.largest_approx_kl


def test_updates_end_alike_with_micro_batches(make_lab, prompts):
    def updates(micro_batch):
        trainer = make_trainer(make_lab(), micro_batch=micro_batch, epochs=4, stop_kl=3e-3)
        return [trainer.iteration(prompts)[0].updates for _ in range(3)]

    assert updates(2) == updates(100)
    assert min(updates(2)) < 8


def test_the_loss_is_the_weighted_sum_of_its_terms(lab, prompts):
    trainer = make_trainer(
        lab,
        kl_estimator="k3",
        kl_coefficient=0.3,
        kl_target=0.0,
        value_coefficient=0.7,
        entropy_coefficient=0.02,
    )
    for _ in range(2):
        stats, _, _ = trainer.iteration(prompts)
        terms = stats.policy_loss + 0.7 * stats.value_loss - 0.02 * stats.entropy
        assert stats.loss == pytest.approx(terms + 0.3 * stats.kl_loss, abs=1e-6)
    assert stats.kl_loss > 1e-4


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_kl_that_is_a_loss_is_not_in_the_reward_too(lab, prompts, estimator):
    trainer = make_trainer(lab, kl_estimator=estimator, kl_coefficient=0.5)
    trainer.iteration(prompts)
    stats, rollout, scores = trainer.iteration(prompts)
    judged = torch.where(torch.tensor(rollout.finished), scores, torch.tensor(-1.0))
    assert abs(stats.kl) > 1e-3
    assert stats.reward == pytest.approx(float(judged.mean()), abs=1e-5)
    assert stats.kl_loss > 0.0


def test_learning_rates_fall_linearly_to_zero(lab, prompts):
    trainer = make_trainer(lab, iterations=4, value_learning_rate=4e-3)
    seen = []
    for _ in range(5):
        trainer.iteration(prompts[:2])
        seen.append([group["lr"] for group in trainer.optimizer.param_groups])
    left = [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [rate for rate, _ in seen] == pytest.approx([1e-2 * part for part in left])
    assert [rate for _, rate in seen] == pytest.approx([4e-3 * part for part in left])


def test_reference_and_reward_model_are_left_alone(lab, prompts):
    reward = lab.reward_model(seed=3)
    head = reward.head.state()

    def scorer(rollout):
        return score_sequences(reward, rollout.sequences, 4)

    trainer = make_trainer(lab, scorer)
    base = {name: p.detach().clone() for name, p in lab.base.model.named_parameters()}
    before = {name: lab.bank.fingerprint(name) for name in lab.bank.names}
    for _ in range(2):
        trainer.iteration(prompts)
    changed = {name for name in before if lab.bank.fingerprint(name) != before[name]}
    assert changed == {"policy", "value"}
    assert set(lab.bank.names) == set(before)
    assert equal(reward.head.state(), head)
    assert all(torch.equal(p, base[name]) for name, p in lab.base.model.named_parameters())
    assert all(p.grad is None for p in lab.bank.parameters_of("policy-start"))
    assert all(p.grad is None for p in lab.bank.parameters_of("reward"))


def test_a_critic_that_starts_as_the_reward_model_says_its_values(lab, prompts):
    reward = lab.reward_model(seed=3)
    trainer = make_trainer(lab, lambda rollout: score_sequences(reward, rollout.sequences, 4))
    lab.bank.copy("reward", "value")
    trainer.critic.head.load(reward.head.state())
    twin = RewardModel(lab.base, lab.bank, "value", trainer.critic.head)
    _, rollout, scores = trainer.iteration(prompts)
    assert not torch.equal(score_sequences(twin, rollout.sequences, 4), scores)  # trained away
    assert torch.equal(score_sequences(reward, rollout.sequences, 4), scores)


def test_another_seed_gives_other_replies(make_lab, prompts):
    rollouts = [make_trainer(make_lab(), seed=seed).iteration(prompts)[1] for seed in (0, 0, 1)]
    assert rollouts[0] == rollouts[1] != rollouts[2]


def test_every_iteration_draws_new_replies(lab, prompts):
    trainer = make_trainer(lab, learning_rate=1e-12)
    assert trainer.iteration(prompts)[1] != trainer.iteration(prompts)[1]


@pytest.fixture(scope="module")
def usual():
    """Weights after two iterations with the usual settings, once made."""
    return {}


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 5e-3},
        {"value_learning_rate": 5e-3},
        {"iterations": 4},
        {"minibatches": 4},
        {"epochs": 1},
        {"max_new_tokens": 3},
        {"temperature": 0.7},
        {"clip_range": 0.001},
        {"value_clip_range": 0.001},
        {"value_coefficient": 0.5},
        {"entropy_coefficient": 0.05},
        {"kl_coefficient": 0.5},
        {"kl_target": 0.0},
        {"kl_horizon": 16},
        {"kl_estimator": "k2"},
        {"kl_estimator": "k3"},
        {"stop_kl": 1e-4},
        {"discount": 0.5},
        {"gae_lambda": 0.5},
        {"missing_eos_score": -4.0},
        {"score_unfinished": True},
        {"max_grad_norm": 1e-3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_changes_the_result(make_lab, prompts, usual, change):
    def fitted(**changes):
        trainer = make_trainer(make_lab(), **{"kl_target": 0.01, "kl_horizon": 64, **changes})
        for _ in range(3):
            trainer.iteration(prompts)
        return weights(trainer)

    if not usual:
        usual.update(fitted())
    assert not equal(fitted(**change), usual)


def test_a_scripted_score_rises(make_lab, prompts, tmp_path):
    # Large weights, so that a small adapter can turn the distribution of tokens far.
    lab = make_lab(write_tiny_model(tmp_path / "m", hidden=32, initializer_range=0.3))
    # What to say more of: the 40 tokens whose rows of the LM head point where that of 200 does.
    rows = lab.base.lm_head.weight.detach()
    wanted = set((rows @ rows[200]).topk(40).indices.tolist())

    def scorer(rollout):
        return torch.tensor([sum(t in wanted for t in one) / len(one) for one in rollout.responses])

    settings = PpoSettings(
        learning_rate=2e-2,
        value_learning_rate=2e-2,
        iterations=20,
        minibatches=2,
        epochs=2,
        max_new_tokens=8,
        kl_coefficient=0.01,
        kl_target=0.0,
        stop_kl=0.0,
    )
    trainer = PpoTrainer(lab.policy(), lab.critic(), scorer, settings, seed=2, micro_batch=64)
    scores = [trainer.iteration(prompts * 8)[0].score for _ in range(15)]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.15
