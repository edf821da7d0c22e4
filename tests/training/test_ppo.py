"""PPO on a tiny model: the gradient, the penalties, the resume, and that a score rises."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tiny_model import write_tiny_model

from chatrlhf.errors import RoundError, VersionError
from chatrlhf.models.reward_model import RewardModel
from chatrlhf.settings import PpoSettings
from chatrlhf.training.ppo import PPO_PARTS, PpoTrainer
from chatrlhf.training.reward import score_sequences

SETTINGS = PpoSettings(
    learning_rate=1e-2,
    value_learning_rate=1e-2,
    iterations=8,
    minibatches=2,
    epochs=2,
    max_new_tokens=6,
)


def odd_share(rollout):
    """Share of odd tokens: a score without any model."""
    return torch.tensor([sum(t % 2 for t in one) / len(one) for one in rollout.responses])


def make_trainer(lab, scorer=odd_share, seed=0, micro_batch=100, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return PpoTrainer(
        lab.policy(seed=1), lab.critic(seed=2), scorer, settings, seed=seed, micro_batch=micro_batch
    )


def weights(trainer):
    parts, _ = trainer.state()
    return {
        f"{part}/{key}": tensor.clone()
        for part, some in parts.items()
        for key, tensor in some.items()
    }


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def logprobs_of(lab, adapter, prompt, response):
    """Log-probabilities of a response by the model's own logits, (T,)."""
    with lab.bank.using(adapter):
        ids = torch.tensor([[*prompt, *response]])
        log_p = lab.base.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    places = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
    return log_p[places, torch.tensor(response)]


def values_of(lab, critic, prompt, response):
    """What the critic says where each response token is drawn, from the definition."""
    with lab.bank.using(critic.adapter):
        ids = torch.tensor([[*prompt, *response]])
        layers = lab.base.decoder(input_ids=ids, output_hidden_states=True).hidden_states
    middle, hidden = layers[1][0], layers[-1][0]  # after the first of two layers, and at the end
    values = []
    for place in range(len(prompt) - 1, len(prompt) + len(response) - 1):
        spoken = slice(len(prompt), place + 1)
        mean = middle[spoken].sum(0) / max(place + 1 - len(prompt), 1)
        features = torch.cat([hidden[place], mean, 0.01 * hidden[spoken].sum(0)])
        values.append(critic.head.weight @ features + critic.head.bias)
    return torch.stack(values)


@pytest.mark.parametrize("micro_batch", [3, 100])
def test_the_first_iteration_starts_at_ratio_one_and_without_kl(lab, prompts, micro_batch):
    stats, _, _ = make_trainer(lab, micro_batch=micro_batch).iteration(prompts)
    assert stats.first_ratio_error < 1e-4
    assert stats.kl == pytest.approx(0.0, abs=1e-4)
    assert stats.entropy > 1.0


def test_later_iterations_start_at_ratio_one_too_but_away_from_the_reference(lab, prompts):
    trainer = make_trainer(lab, micro_batch=3)
    for _ in range(3):
        stats, _, _ = trainer.iteration(prompts)
        assert stats.first_ratio_error < 1e-4
    assert abs(stats.kl) > 1e-3
    assert stats.approx_kl > 1e-5


def test_the_first_gradient_is_reinforce_with_the_critic_as_baseline(lab, prompts):
    trainer = make_trainer(
        lab,
        epochs=1,
        minibatches=1,
        gae_lambda=1.0,
        kl_coefficient=0.0,
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
    def gradients(micro_batch):
        trainer = make_trainer(
            make_lab(), micro_batch=micro_batch, epochs=1, minibatches=1, entropy_coefficient=0.1
        )
        stats, _, _ = trainer.iteration(prompts)
        parameters = [*trainer.policy.parameters(), *trainer.critic.parameters()]
        return [parameter.grad for parameter in parameters], stats

    whole, whole_stats = gradients(100)
    parts, parts_stats = gradients(3)
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


def test_resuming_is_exact_bit_for_bit(make_lab, prompts):
    prompts = prompts[:6]

    def after(trainer, iterations):
        for _ in range(iterations):
            stats, rollout, _ = trainer.iteration(prompts)
        return weights(trainer), trainer.kl_coefficient, stats, rollout

    straight = after(make_trainer(make_lab(), micro_batch=3), 4)

    first = make_trainer(make_lab(), micro_batch=3)
    after(first, 2)
    parts, values = first.state()
    after(first, 2)  # going on must not change what was saved
    for _ in range(2):  # nor must resuming from it
        second = make_trainer(make_lab(), micro_batch=3)
        second.restore(parts, values)
        assert second.step == 2
        resumed = after(second, 2)
        assert equal(resumed[0], straight[0])
        assert resumed[1:] == straight[1:]


def test_the_state_has_the_parts_that_a_checkpoint_stores(lab, prompts):
    trainer = make_trainer(lab)
    trainer.iteration(prompts)
    parts, values = trainer.state()
    assert set(parts) == set(PPO_PARTS)
    assert values["step"] == 1
    count = len(trainer.policy.parameters()) + len(trainer.critic.parameters())
    assert len(parts["optimizer"]) == 3 * count  # step and two moments each


def test_a_state_of_another_model_is_refused(make_lab, prompts):
    parts, values = make_trainer(make_lab()).state()
    parts["value"] = {key: tensor[:1] for key, tensor in parts["value"].items()}
    with pytest.raises(VersionError, match="has shape"):
        make_trainer(make_lab()).restore(parts, values)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_stops_the_round_and_changes_no_weight(lab, prompts, bad):
    trainer = make_trainer(lab, lambda rollout: torch.full((len(rollout),), bad))
    before = weights(trainer)
    with pytest.raises(RoundError, match="PPO diverged in iteration 1"):
        trainer.iteration(prompts)
    assert equal(weights(trainer), before)


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
        {"discount": 0.5},
        {"gae_lambda": 0.5},
        {"missing_eos_score": -4.0},
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
    )
    trainer = PpoTrainer(lab.policy(), lab.critic(), scorer, settings, seed=2, micro_batch=64)
    scores = [trainer.iteration(prompts * 8)[0].score for _ in range(15)]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.15
