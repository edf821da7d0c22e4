"""The PPO objective against numbers worked out by hand and an exact distribution."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatrlhf.maths.ppo_loss import (
    adapted_kl_coefficient,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_loss_k2,
    kl_loss_k3,
)

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.25, 0.25, 0.4, 0.1], dtype=torch.float64)


def row(*numbers):
    return torch.tensor([numbers])


def policy_loss(ratios, advantages, mask=None):
    logprobs = row(*ratios).log().requires_grad_()
    mask = torch.ones(1, len(ratios), dtype=torch.bool) if mask is None else torch.tensor([mask])
    return logprobs, clipped_policy_loss(
        logprobs, torch.zeros(1, len(ratios)), row(*advantages), mask, 0.2
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.1, 2.0, -2.2, False),
        (1.5, 2.0, -2.4, True),  # above, and wanted: cut at 1.2
        (0.5, 2.0, -1.0, False),  # below although wanted: must be free to come back
        (0.9, -1.0, 0.9, False),
        (0.5, -1.0, 0.8, True),  # below, and unwanted: cut at 0.8
        (1.5, -1.0, 1.5, False),  # above although unwanted: must be free to come back
    ],
)
def test_policy_loss_and_its_gradient_on_both_sides_of_the_clip(ratio, advantage, loss, clipped):
    logprobs, found = policy_loss([ratio], [advantage])
    found.loss.backward()
    assert found.loss.item() == pytest.approx(loss)
    assert found.clip_fraction.item() == float(clipped)
    # d(-A r)/d logprob = -A r where the surrogate is not cut.
    expected = 0.0 if clipped else -advantage * ratio
    assert logprobs.grad.item() == pytest.approx(expected)


def test_policy_loss_is_a_mean_over_real_tokens_only():
    logprobs, found = policy_loss([1.1, 1.5, 3.0], [2.0, 2.0, math.nan], [True, True, False])
    found.loss.backward()
    assert found.loss.item() == pytest.approx((-2.2 - 2.4) / 2)
    assert found.clip_fraction.item() == 0.5
    assert logprobs.grad[0].tolist() == pytest.approx([-1.1, 0.0, 0.0])
    # The samples are those of the old policy: r - 1 - ln r.
    k3 = [1.1 - 1 - math.log(1.1), 1.5 - 1 - math.log(1.5)]
    assert found.approx_kl.item() == pytest.approx(sum(k3) / 2, abs=1e-6)


def test_equal_policies_have_a_ratio_of_one():
    _, found = policy_loss([1.0, 1.0], [3.0, -1.0])
    assert found.loss.item() == -1.0
    assert found.clip_fraction.item() == found.approx_kl.item() == 0.0


def test_value_loss_by_hand():
    values = torch.tensor([[1.1, 1.5, 0.0, math.nan]], requires_grad=True)
    old = torch.tensor([[1.0, 1.0, 1.0, math.nan]])
    returns = torch.tensor([[2.0, 2.0, 2.0, math.nan]])
    mask = torch.tensor([[True, True, True, False]])
    found = clipped_value_loss(values, old, returns, mask, 0.2)
    # Within the clip: .9^2. Moved by .5, cut at 1.2: .8^2 > .5^2. Moved away to 0: 2^2 > 1.2^2.
    assert found.loss.item() == pytest.approx(0.5 * (0.81 + 0.64 + 4.0) / 3)
    assert found.clip_fraction.item() == pytest.approx(1 / 3)
    found.loss.backward()
    # (v - R) / 3 where not cut, nothing where the clip acts.
    assert values.grad[0, :3].tolist() == pytest.approx([-0.9 / 3, 0.0, -2.0 / 3])


def test_kl_estimates_by_hand():
    # Log ratio ln 2: k1 = ln 2, k2 = (ln 2)^2 / 2, k3 = 1/2 - 1 + ln 2.
    logprobs, reference = torch.tensor(0.5).log(), torch.tensor(0.25).log()
    assert kl_k1(logprobs, reference).item() == pytest.approx(math.log(2))
    assert kl_k2(logprobs, reference).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert kl_k3(logprobs, reference).item() == pytest.approx(math.log(2) - 0.5)


@settings(max_examples=60, deadline=None)
@given(st.floats(-8, 0), st.floats(-8, 0))
def test_k3_is_never_negative_and_all_vanish_for_equal_policies(one, other):
    a, b = torch.tensor(one), torch.tensor(other)
    assert kl_k3(a, b).item() >= -1e-6
    assert kl_k2(a, b).item() >= 0.0
    assert kl_k1(a, b).item() == pytest.approx(-kl_k1(b, a).item())
    assert kl_k1(a, a).item() == kl_k2(a, a).item() == kl_k3(a, a).item() == 0.0


def test_expected_k1_and_k3_over_the_whole_distribution_are_the_kl_divergence():
    exact = float(torch.distributions.kl_divergence(*map(torch.distributions.Categorical, (P, Q))))
    assert float((P * kl_k1(P.log(), Q.log())).sum()) == pytest.approx(exact)
    assert float((P * kl_k3(P.log(), Q.log())).sum()) == pytest.approx(exact)


def kl_gradient(logits):
    """Gradient of KL(pi, Q) by the logits of pi, from the definition."""
    logits = logits.clone().requires_grad_()
    log_p = torch.log_softmax(logits, -1)
    (log_p.exp() * (log_p - Q.log())).sum().backward()
    return logits.grad


def expected_gradient(kl_loss, logits, old):
    """Mean gradient of a loss of one token, the token being drawn from ``old``."""
    logits = logits.clone().requires_grad_()
    log_p = torch.log_softmax(logits, -1)
    one = torch.ones(1, 1, dtype=torch.bool)
    losses = [
        kl_loss(log_p[v].view(1, 1), old[v].log().view(1, 1), Q[v].log().view(1, 1), one)
        for v in range(4)
    ]
    (old * torch.stack(losses)).sum().backward()
    return logits.grad


MOVED = torch.tensor([0.3, 0.4, 0.2, 0.1], dtype=torch.float64).log()


@pytest.mark.parametrize("logits", [P.log(), MOVED], ids=["on policy", "after updates"])
@pytest.mark.parametrize("kl_loss", [kl_loss_k2, kl_loss_k3])
def test_expected_gradient_of_a_kl_loss_is_that_of_the_kl_divergence(kl_loss, logits):
    found = expected_gradient(kl_loss, logits, old=P)
    assert torch.allclose(found, kl_gradient(logits), atol=1e-12)


def test_k2_as_a_loss_is_k1_in_the_reward_sample_by_sample():
    # REINFORCE with the reward -k1: d loss / d logprob = k1. No baseline, no discount.
    logprobs = row(-1.0, -2.0, -0.5).double().requires_grad_()
    reference = row(-1.5, -1.0, -0.5).double()
    mask = torch.ones(1, 3, dtype=torch.bool)
    kl_loss_k2(logprobs, logprobs.detach(), reference, mask).backward()
    expected = [(-1.0 + 1.5) / 3, (-2.0 + 1.0) / 3, 0.0]
    assert logprobs.grad[0].tolist() == pytest.approx(expected)


def test_k3_without_its_weight_would_have_the_gradient_of_the_reverse_divergence():
    logits = P.log().requires_grad_()
    log_p = torch.log_softmax(logits, -1)
    (P * kl_k3(log_p, Q.log())).sum().backward()
    reverse = P.log().requires_grad_()
    (-(Q * torch.log_softmax(reverse, -1)).sum()).backward()  # KL(Q, pi) but for a constant
    assert torch.allclose(logits.grad, reverse.grad, atol=1e-12)
    assert not torch.allclose(logits.grad, kl_gradient(P.log()), atol=1e-2)


@pytest.mark.parametrize(
    ("kl_loss", "expected"),
    [
        # Ratio 1.5 and 1; log ratios to the reference ln 2 and -ln 2; two real tokens of three.
        (kl_loss_k2, (1.5 + 1.0) * 0.5 * math.log(2) ** 2 / 2),
        (kl_loss_k3, (1.5 * (math.log(2) - 0.5) + (1.0 - math.log(2))) / 2),
    ],
)
def test_kl_losses_by_hand_and_blind_to_padding(kl_loss, expected):
    logprobs = row(0.6, 0.2, math.nan).log().requires_grad_()
    old, reference = row(0.4, 0.2, math.nan).log(), row(0.3, 0.4, math.nan).log()
    mask = torch.tensor([[True, True, False]])
    found = kl_loss(logprobs, old, reference, mask)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    found.backward()
    assert logprobs.grad[0, 2].item() == 0.0
    assert bool(logprobs.grad.isfinite().all())


tokens = st.tuples(
    st.floats(-3, 0), st.floats(-3, 0), st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(tokens, min_size=1, max_size=5), min_size=1, max_size=4))
def test_both_clipped_losses_are_means_of_their_formulas_token_by_token(rows):
    width = max(map(len, rows)) + 1
    grid = torch.full((5, len(rows), width), math.nan, dtype=torch.float64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    policy, value = [], []
    for at, one in enumerate(rows):
        mask[at, : len(one)] = True
        for place, (logprob, old, advantage, now, before) in enumerate(one):
            numbers = [logprob, old, advantage, now, before]
            grid[:, at, place] = torch.tensor(numbers, dtype=torch.float64)
            ratio = math.exp(logprob - old)
            policy.append(-min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage))
            near = min(max(now, before - 0.5), before + 0.5)
            value.append(0.5 * max((now - advantage) ** 2, (near - advantage) ** 2))
    found = clipped_policy_loss(grid[0], grid[1], grid[2], mask, 0.2)
    assert found.loss.item() == pytest.approx(sum(policy) / len(policy), abs=1e-9)
    critic = clipped_value_loss(grid[3], grid[4], grid[2], mask, 0.5)
    assert critic.loss.item() == pytest.approx(sum(value) / len(value), abs=1e-9)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (6.0, 0.1),  # on target
        (6.6, 0.1 * (1 + 0.1 * 0.05)),  # a tenth above, 100 of 2000 samples
        (60.0, 0.1 * (1 + 0.2 * 0.05)),  # far above: cut to a fifth
        (0.0, 0.1 * (1 - 0.2 * 0.05)),
        (-3.0, 0.1 * (1 - 0.2 * 0.05)),
    ],
)
def test_kl_coefficient_follows_the_target(observed, expected):
    found = adapted_kl_coefficient(0.1, observed, 6.0, samples=100, horizon=2000)
    assert found == pytest.approx(expected)


def test_explained_variance_by_hand():
    returns = row(1.0, 2.0, 3.0, 99.0)
    mask = torch.tensor([[True, True, True, False]])

    def explained(*values):
        return explained_variance(row(*values), returns, mask).item()

    assert explained(1.0, 2.0, 3.0, -5.0) == pytest.approx(1.0)
    assert explained(2.0, 2.0, 2.0, 0.0) == pytest.approx(0.0)
    assert explained(6.0, 7.0, 8.0, 0.0) == pytest.approx(1.0)  # a constant offset is no variance
    # Residuals -1, 0, 3 - 3.5 = -.5: mean -.5, variance .25; of the returns it is 1.
    assert explained(2.0, 2.0, 3.5, 0.0) == pytest.approx(0.75)
    assert explained(3.0, 2.0, 1.0, 0.0) == pytest.approx(-3.0)


def test_explained_variance_of_a_single_token_is_zero():
    mask = torch.tensor([[True, False]])
    assert explained_variance(row(1.0, 2.0), row(5.0, 2.0), mask).item() == 0.0


def test_rounding_does_not_count_as_clipped():
    generator = torch.Generator().manual_seed(0)
    values, step, returns = torch.randn(3, 1, 20000, generator=generator)
    values, old = 0.01 * values, 0.01 * values + 0.1 * step.clamp(-1, 1)  # always within the clip
    mask = torch.ones(values.shape, dtype=torch.bool)
    assert clipped_value_loss(values, old, 0.1 * returns, mask, 0.2).clip_fraction == 0.0
