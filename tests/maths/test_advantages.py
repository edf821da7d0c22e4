"""Token rewards and GAE against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatrlhf.maths.advantages import generalised_advantages, token_rewards

MASK = torch.tensor([[True, True, True], [True, True, False]])
finite = st.floats(-5, 5, width=32)
replies = st.lists(
    st.lists(st.tuples(finite, finite), min_size=1, max_size=6), min_size=1, max_size=4
)


def grids(replies, filler=0.0, extra=0):
    shape = (len(replies), max(map(len, replies)) + extra)
    rewards, values = torch.full(shape, filler), torch.full(shape, filler)
    mask = torch.zeros(shape, dtype=torch.bool)
    for row, reply in enumerate(replies):
        rewards[row, : len(reply)] = torch.tensor([reward for reward, _ in reply])
        values[row, : len(reply)] = torch.tensor([value for _, value in reply])
        mask[row, : len(reply)] = True
    return rewards, values, mask


def test_reward_is_minus_beta_times_log_ratio_with_the_score_on_the_last_token():
    logprobs = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, -1.0, math.nan]])
    reference = torch.tensor([[-1.5, -1.0, -0.5], [-3.0, -2.0, math.nan]])
    found = token_rewards(torch.tensor([2.0, -1.0]), logprobs, reference, MASK, 0.1)
    # Row one: -0.1 * 0.5, -0.1 * -1, -0.1 * 0 + 2. Row two: -0.1 * 2, -0.1 * 1 - 1.
    expected = torch.tensor([[-0.05, 0.1, 2.0], [-0.2, -1.1, 0.0]])
    assert torch.allclose(found, expected, atol=1e-6)


def test_gae_of_two_replies_of_different_lengths_by_hand():
    rewards = torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, math.nan]])
    values = torch.tensor([[0.5, 0.4, 0.6], [1.0, 0.5, math.nan]])
    found = generalised_advantages(rewards, values, MASK, discount=0.9, gae_lambda=0.5)
    # Row one, TD errors: 0 + .9*.4 - .5 = -.14, 0 + .9*.6 - .4 = .14, 1 - .6 = .4; factor .45:
    # A3 = .4, A2 = .14 + .45*.4 = .32, A1 = -.14 + .45*.32 = .004.
    # Row two: 1 + .9*.5 - 1 = .45, 2 - .5 = 1.5: A2 = 1.5, A1 = .45 + .45*1.5 = 1.125.
    advantages = torch.tensor([[0.004, 0.32, 0.4], [1.125, 1.5, 0.0]])
    assert torch.allclose(found.advantages, advantages, atol=1e-6)
    returns = torch.tensor([[0.504, 0.72, 1.0], [2.125, 2.0, 0.0]])
    assert torch.allclose(found.returns, returns, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(replies=replies, discount=st.floats(0.5, 1.0))
def test_lambda_one_is_the_discounted_return_minus_the_value(replies, discount):
    rewards, values, mask = grids(replies)
    found = generalised_advantages(rewards, values, mask, discount, 1.0)
    for row, reply in enumerate(replies):
        for place, (_, value) in enumerate(reply):
            later = reply[place:]
            gain = sum(discount**k * reward for k, (reward, _) in enumerate(later))
            assert found.advantages[row, place].item() == pytest.approx(gain - value, abs=1e-4)
            assert found.returns[row, place].item() == pytest.approx(gain, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(replies=replies, discount=st.floats(0.5, 1.0))
def test_lambda_zero_is_the_one_step_error(replies, discount):
    rewards, values, mask = grids(replies)
    found = generalised_advantages(rewards, values, mask, discount, 0.0).advantages
    for row, reply in enumerate(replies):
        following = [value for _, value in reply[1:]] + [0.0]
        for place, ((reward, value), after) in enumerate(zip(reply, following, strict=True)):
            expected = reward + discount * after - value
            assert found[row, place].item() == pytest.approx(expected, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(replies=replies, discount=st.floats(0.5, 1.0), gae_lambda=st.floats(0.0, 1.0))
def test_gae_is_the_mean_of_all_n_step_advantages_weighted_by_lambda(replies, discount, gae_lambda):
    # Schulman et al. 2015, equation 16 as first defined: (1 - lambda) sum lambda^(n-1) A^(n),
    # where the last, which reaches the end, carries all the weight that is left.
    rewards, values, mask = grids(replies)
    found = generalised_advantages(
        rewards.double(), values.double(), mask, discount, gae_lambda
    ).advantages
    for row, reply in enumerate(replies):
        for place, (_, value) in enumerate(reply):
            left = len(reply) - place
            total = 0.0
            for n in range(1, left + 1):
                gain = sum(discount**k * reply[place + k][0] for k in range(n))
                after = reply[place + n][1] if n < left else 0.0
                weight = gae_lambda ** (n - 1) * (1.0 if n == left else 1.0 - gae_lambda)
                total += weight * (gain + discount**n * after - value)
            assert found[row, place].item() == pytest.approx(total, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(replies=replies, extra=st.integers(0, 3))
def test_padding_with_nan_changes_no_advantage_and_stays_zero(replies, extra):
    plain = generalised_advantages(*grids(replies), 0.97, 0.9)
    rewards, values, mask = grids(replies, math.nan, extra)
    found = generalised_advantages(rewards, values, mask, 0.97, 0.9)
    width = plain.advantages.shape[1]
    for ours, theirs in zip(found, plain, strict=True):
        assert torch.equal(ours[:, :width], theirs)
        assert not bool(ours[~mask].any())
