"""How a batch is cut up, and what is fixed before its first update."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatrlhf.settings import PpoSettings
from chatrlhf.training.experience import Measured, draw_minibatches, make_experience
from chatrlhf.training.rollout import Rollout

ROLLOUT = Rollout(
    prompts=((7, 8), (9,), (10, 11)),
    responses=((1, 2), (3,), (4, 5, 6)),
    logprobs=((-1.0, -2.0), (-0.5,), (-1.0, -1.0, -1.0)),
    finished=(True, True, False),
)
MASK = [[1, 1, 0], [1, 0, 0], [1, 1, 1]]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=24),
    count=st.integers(1, 30),
    micro_batch=st.integers(1, 10),
    seed=st.integers(0, 3),
)
def test_every_row_is_in_one_minibatch_and_these_are_of_equal_size(
    lengths, count, micro_batch, seed
):
    plan = draw_minibatches(lengths, count, micro_batch, random.Random(seed))
    rows = [[row for micro in minibatch for row in micro] for minibatch in plan]
    assert sorted(row for some in rows for row in some) == list(range(len(lengths)))
    assert len(plan) == min(count, len(lengths))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    for minibatch, flat in zip(plan, rows, strict=True):
        assert max(map(len, minibatch)) <= micro_batch
        assert len(minibatch) == -(-len(flat) // micro_batch)
        found = [lengths[row] for row in flat]
        assert found == sorted(found)


def test_minibatches_are_drawn_at_random():
    plans = [draw_minibatches([5] * 8, 2, 8, random.Random(seed)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


def measured(old=0.0, reference=0.0, values=0.0):
    found = Measured.empty(ROLLOUT)
    mask = torch.tensor(MASK).bool()
    for grid, value in zip(found, (old, reference, values), strict=True):
        grid[mask] = value
    return found


def test_rewards_advantages_and_returns_by_hand():
    changes = PpoSettings(
        kl_coefficient=0.1, discount=1.0, gae_lambda=1.0, missing_eos_score=-3.0, kl_target=0.0
    )
    scores = torch.tensor([2.0, 1.0, 9.0])
    found = make_experience(ROLLOUT, scores, measured(-1.0, -1.5, 0.25), changes, 0.1)
    assert found.is_response_token.tolist() == torch.tensor(MASK).bool().tolist()
    # Each token costs 0.1 * 0.5; the third reply did not end, so that its score is -3.
    rewards = [[-0.05, 1.95, 0.0], [0.95, 0.0, 0.0], [-0.05, -0.05, -3.05]]
    assert torch.allclose(found.rewards, torch.tensor(rewards))
    returns = torch.tensor([[1.9, 1.95, 0.0], [0.95, 0.0, 0.0], [-3.15, -3.1, -3.05]])
    assert torch.allclose(found.returns, returns, atol=1e-6)
    raw = [1.65, 1.7, 0.7, -3.4, -3.35, -3.3]  # returns less 0.25
    mean = sum(raw) / 6
    deviation = (sum((one - mean) ** 2 for one in raw) / 5) ** 0.5
    whitened = found.advantages[found.is_response_token].tolist()
    assert whitened == pytest.approx([(one - mean) / deviation for one in raw], abs=1e-5)
    assert found.sequence_kl().tolist() == pytest.approx([1.0, 0.5, 1.5])
    assert torch.equal(found.scores, scores)
    # All old log-probabilities are -1; the six tokens were drawn with -1, -2, -0.5, -1, -1, -1.
    assert found.sampling_mismatch() == pytest.approx(1.5 / 6)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_kl_loss_leaves_the_reward_alone(estimator):
    changes = PpoSettings(kl_estimator=estimator, missing_eos_score=-3.0)
    found = make_experience(ROLLOUT, torch.ones(3), measured(-1.0, -1.5), changes, 0.1)
    assert found.rewards.sum(-1).tolist() == [1.0, 1.0, -3.0]


def test_a_part_has_its_rows_in_order_and_no_wider_than_they_are():
    found = make_experience(ROLLOUT, torch.ones(3), measured(-1.0), PpoSettings(), 0.1)
    part = found.part([1, 0], torch.device("cpu"))
    assert part.is_response_token.tolist() == [[True, False], [True, True]]
    assert part.old_logprobs.tolist() == [[-1.0, 0.0], [-1.0, -1.0]]
    assert torch.equal(part.advantages, found.advantages[[1, 0], :2])
    assert found.tokens([1, 0]) == 3
