"""The whole PPO loss on a tiny model against float64 formulas on the model's own logits.

Its gradient is compared with finite differences of those formulas, so that nothing of the code
under test, autograd included, is its own judge.
"""

from __future__ import annotations

import pytest
import torch
from ppo_lab import log_distributions, values_of

from chatrlhf.settings import PpoSettings
from chatrlhf.training.actor_critic import ActorCritic
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.experience import Part
from chatrlhf.training.ppo_objective import ppo_objective

REPLIES = [([70, 80, 90], [100, 110, 5]), ([75, 85], [120]), ([66, 77, 88, 99], [200, 210])]
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()
BETA, CV, CE = 0.4, 0.3, 0.05


def settings(estimator):
    return PpoSettings(
        value_coefficient=CV,
        entropy_coefficient=CE,
        kl_estimator=estimator,
        clip_range=0.1,
        value_clip_range=0.1,
    )


@pytest.fixture
def scene(make_lab):
    """Policy, critic and reference in float64, and a batch that both have moved away from."""
    lab = make_lab()
    lab.base.model.double()
    policy, critic = lab.policy(seed=1), lab.critic(seed=2)
    generator = torch.Generator().manual_seed(5)

    def noise(scale):
        return torch.randn(MASK.shape, generator=generator) * scale * MASK

    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.05
    actors = ActorCritic(policy, critic, 1.0, checkpointing=False)
    batch = actors.batch([TokenSequence.of_reply(*one) for one in REPLIES])
    with torch.no_grad():
        now = actors.evaluate(batch)
    part = Part(
        is_response_token=MASK,
        old_logprobs=now.logprobs + noise(0.15),  # some ratios are clipped, some are not
        reference_logprobs=actors.reference_logprobs(batch),
        old_values=now.values + noise(0.15),
        advantages=noise(1.0),
        returns=now.values + noise(1.0),
    )
    return lab, actors, batch, part


@torch.no_grad()
def by_formula(lab, actors, part, estimator, weights=None):
    """The loss, in float64 and token by token; ``weights`` are held where k2 holds them."""
    terms, ratios = [], []
    for row, (prompt, response) in enumerate(REPLIES):
        log_p = log_distributions(lab, "policy", prompt, response)
        values = values_of(lab, actors.critic, prompt, response)
        for place, token in enumerate(response):
            old, reference, before, advantage, target = (
                float(grid[row, place]) for grid in part[1:]
            )
            logprob, value = float(log_p[place, token]), float(values[place])
            ratio = float(torch.tensor(logprob - old, dtype=torch.float64).exp())
            policy = -min(ratio * advantage, min(max(ratio, 0.9), 1.1) * advantage)
            near = min(max(value, before - 0.1), before + 0.1)
            critic = 0.5 * max((value - target) ** 2, (near - target) ** 2)
            entropy = float(-(log_p[place].exp() * log_p[place]).sum())
            far = logprob - reference
            weight = ratio if weights is None or estimator != "k2" else weights[len(ratios)]
            inverse = float(torch.tensor(-far, dtype=torch.float64).exp())
            kl = {"k1": 0.0, "k2": 0.5 * far**2, "k3": inverse - 1.0 + far}[estimator]
            terms.append(policy + CV * critic - CE * entropy + BETA * weight * kl)
            ratios.append(ratio)
    return sum(terms) / len(terms), ratios


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_loss_and_gradient_of_a_batch_that_policy_and_critic_have_left(scene, estimator):
    lab, actors, batch, part = scene
    found = ppo_objective(actors.evaluate(batch), part, settings(estimator), BETA)
    expected, weights = by_formula(lab, actors, part, estimator)
    assert found.loss.item() == pytest.approx(expected, abs=1e-6)
    assert found.measured["loss"] == found.loss.item()
    assert 0 < found.measured["clip_fraction"] < 1
    assert 0 < found.measured["value_clip_fraction"] < 1
    assert (found.measured["kl_loss"] > 0) == (estimator != "k1")

    found.loss.backward()
    generator = torch.Generator().manual_seed(6)
    for parameters in (actors.policy.parameters(), actors.critic.parameters()):
        for _ in range(3):
            direction = [torch.randn(p.shape, generator=generator) for p in parameters]
            slope = sum(
                float((p.grad.double() * d.double()).sum())
                for p, d in zip(parameters, direction, strict=True)
            )
            width, totals = 1e-4, []
            saved = [p.detach().clone() for p in parameters]
            for sign in (1, -1):
                with torch.no_grad():
                    for p, d, start in zip(parameters, direction, saved, strict=True):
                        p.copy_(start + sign * width * d)
                totals.append(by_formula(lab, actors, part, estimator, weights)[0])
            with torch.no_grad():
                for p, start in zip(parameters, saved, strict=True):
                    p.copy_(start)
            difference = (totals[0] - totals[1]) / (2 * width)
            assert slope == pytest.approx(difference, rel=5e-3, abs=2e-3)


def test_frozen_adapters_and_the_base_get_no_gradient(scene):
    lab, actors, batch, part = scene
    ppo_objective(actors.evaluate(batch), part, settings("k3"), BETA).loss.backward()
    assert all(p.grad is None for p in lab.bank.parameters_of("policy-start"))
    assert all(p.grad is None for p in lab.base.model.parameters())
    assert all(p.grad is not None for p in actors.policy.parameters())
    assert all(p.grad is not None for p in actors.critic.parameters())


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_at_the_reference_a_kl_loss_pulls_nowhere(make_lab, estimator):
    lab = make_lab()
    actors = ActorCritic(lab.policy(seed=1), lab.critic(seed=2), 1.0, checkpointing=False)
    batch = actors.batch([TokenSequence.of_reply(*one) for one in REPLIES])
    now = actors.evaluate(batch)
    zeros = torch.zeros(MASK.shape)
    reference = actors.reference_logprobs(batch)
    part = Part(MASK, now.logprobs.detach(), reference, now.values.detach(), zeros, zeros)
    found = ppo_objective(now, part, PpoSettings(kl_estimator=estimator, value_coefficient=0), 9.0)
    found.loss.backward()
    assert found.measured["kl_loss"] == 0.0
    assert all(not bool(p.grad.any()) for p in actors.policy.parameters())
