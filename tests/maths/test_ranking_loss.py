"""Plackett-Luce against Bradley-Terry, hand-computed numbers and the sum over all orders."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatrlhf.maths.ranking_loss import (
    batch_plackett_luce_loss,
    comparisons,
    pair_accuracy,
    plackett_luce_loss,
)

score = st.floats(-6, 6)
ranking = st.lists(st.tuples(score, st.integers(1, 4)), min_size=2, max_size=6)


def loss(scores, ranks):
    found = plackett_luce_loss(torch.tensor(scores, dtype=torch.float64), torch.tensor(ranks))
    return float(found)


@settings(max_examples=60, deadline=None)
@given(score, score)
def test_two_replies_are_bradley_terry(better, worse):
    expected = math.log1p(math.exp(-(better - worse)))
    assert loss([better, worse], [1, 2]) == pytest.approx(expected)
    assert loss([worse, better], [2, 1]) == pytest.approx(expected)


def test_three_replies_by_hand():
    # exp(scores) are 1, 2, 3 and the order is third, first, second: 3/6 times 1/3.
    scores = [0.0, math.log(2), math.log(3)]
    assert loss(scores, [2, 3, 1]) == pytest.approx(-math.log(3 / 6 * 1 / 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(score, min_size=3, max_size=4))
def test_probabilities_of_all_orders_sum_to_one(scores):
    orders = permutations(range(1, len(scores) + 1))
    assert sum(math.exp(-loss(scores, list(order))) for order in orders) == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(ranking, st.floats(-50, 50))
def test_a_shift_of_all_scores_changes_nothing(replies, shift):
    scores, ranks = [s for s, _ in replies], [r for _, r in replies]
    shifted = [s + shift for s in scores]
    assert loss(shifted, ranks) == pytest.approx(loss(scores, ranks), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(ranking, st.randoms())
def test_the_order_in_which_replies_are_listed_changes_nothing(replies, random):
    shuffled = list(replies)
    random.shuffle(shuffled)
    assert loss(*map(list, zip(*shuffled, strict=True))) == pytest.approx(
        loss(*map(list, zip(*replies, strict=True)))
    )


@settings(max_examples=60, deadline=None)
@given(ranking)
def test_ties_compare_each_member_of_a_group_with_the_worse_replies_only(replies):
    expected = 0.0
    for mine, rank in replies:
        worse = [math.exp(other) for other, its in replies if its > rank]
        if worse:
            expected -= math.log(math.exp(mine) / (math.exp(mine) + sum(worse)))
    assert loss([s for s, _ in replies], [r for _, r in replies]) == pytest.approx(expected)


def test_two_winners_tied_before_one_loser_are_two_comparisons():
    expected = math.log1p(math.exp(-(1.0 - 0.5))) + math.log1p(math.exp(-(2.0 - 0.5)))
    assert loss([1.0, 2.0, 0.5], [1, 1, 2]) == pytest.approx(expected)


def test_all_tied_is_no_information():
    scores = torch.tensor([3.0, -1.0, 0.5], requires_grad=True)
    found = plackett_luce_loss(scores, torch.tensor([1, 1, 1]))
    assert found.item() == 0.0


def test_best_of_k_is_one_softmax_term():
    scores = [0.3, 1.2, -0.4, 0.0]
    expected = -math.log(math.exp(1.2) / sum(map(math.exp, scores)))
    assert loss(scores, [2, 1, 2, 2]) == pytest.approx(expected)


def test_gradient_lifts_the_best_and_lowers_the_worst():
    scores = torch.zeros(4, requires_grad=True)
    plackett_luce_loss(scores, torch.tensor([1, 2, 3, 4])).backward()
    # Stage by stage p - 1[chosen]: -3/4; 1/4 - 2/3; 1/4 + 1/3 - 1/2; 1/4 + 1/3 + 1/2.
    assert scores.grad.tolist() == pytest.approx([-3 / 4, -5 / 12, 1 / 12, 13 / 12])
    assert scores.grad.sum().item() == pytest.approx(0.0, abs=1e-6)


def test_gaps_in_ranks_mean_nothing():
    assert loss([1.0, 0.2, -1.0], [1, 5, 9]) == pytest.approx(loss([1.0, 0.2, -1.0], [1, 2, 3]))


def test_one_ranking_is_one_observation_whatever_its_size():
    scores = torch.tensor([[0.0, 1.0, 2.0], [5.0, 4.0, math.nan]])
    ranks = torch.tensor([[3, 2, 1], [1, 2, 0]])
    is_reply = torch.tensor([[True, True, True], [True, True, False]])
    total = sum(map(math.exp, (0.0, 1.0, 2.0)))
    three = -math.log(math.exp(2) / total) - math.log(math.e / (math.e + 1))
    two = math.log1p(math.exp(-1))
    found = batch_plackett_luce_loss(scores, ranks, is_reply)
    assert found.item() == pytest.approx((three + two) / 2)


def test_comparisons_leave_ties_out():
    found = comparisons(torch.tensor([2, 1, 2, 3]))
    assert {tuple(pair) for pair in found.tolist()} == {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)}


def test_pair_accuracy_counts_equal_scores_as_wrong():
    scores = torch.tensor([1.0, 3.0, 1.0, 1.0])
    assert pair_accuracy(scores, torch.tensor([2, 1, 2, 3])) == (3, 5)
