"""Plackett-Luce against Bradley-Terry, hand-computed numbers and the sum over all orders."""

from __future__ import annotations

import math
from itertools import permutations
from statistics import pvariance

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatrlhf.maths.ranking_loss import (
    comparisons,
    effective_comparisons,
    pair_accuracy,
    plackett_luce_loss,
    plackett_luce_losses,
    strength_margin,
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


def test_rankings_of_several_sizes_are_padded():
    scores = torch.tensor([[0.0, 1.0, 2.0], [5.0, 4.0, math.nan]])
    ranks = torch.tensor([[3, 2, 1], [1, 2, 0]])
    is_reply = torch.tensor([[True, True, True], [True, True, False]])
    total = sum(map(math.exp, (0.0, 1.0, 2.0)))
    three = -math.log(math.exp(2) / total) - math.log(math.e / (math.e + 1))
    two = math.log1p(math.exp(-1))
    margins = torch.tensor([0.0, 0.5])
    assert plackett_luce_losses(scores, ranks, is_reply, torch.zeros(2)).tolist() == pytest.approx(
        [three, two]
    )
    with_margin = plackett_luce_losses(scores, ranks, is_reply, margins)
    assert with_margin.tolist() == pytest.approx([three, math.log1p(math.exp(-0.5))])


def test_comparisons_leave_ties_out():
    found = comparisons(torch.tensor([2, 1, 2, 3]))
    assert {tuple(pair) for pair in found.tolist()} == {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)}


def test_pair_accuracy_counts_equal_scores_as_wrong():
    scores = torch.tensor([1.0, 3.0, 1.0, 1.0])
    assert pair_accuracy(scores, torch.tensor([2, 1, 2, 3])) == (3, 5)


@pytest.mark.parametrize(
    ("strength", "margin"), [(None, 0.0), (1, 0.0), (2, 0.5), (3, 1.0), (4, 1.5), (5, 2.0)]
)
def test_a_margin_grows_evenly_with_the_strength(strength, margin):
    assert strength_margin(strength, 2.0) == margin


@settings(max_examples=60, deadline=None)
@given(score, score, st.floats(0, 3))
def test_a_margin_between_two_replies_is_that_of_llama_2(better, worse, margin):
    found = plackett_luce_loss(
        torch.tensor([better, worse], dtype=torch.float64), torch.tensor([1, 2]), margin
    )
    assert float(found) == pytest.approx(math.log1p(math.exp(-(better - worse - margin))))


def test_a_margin_is_added_to_all_worse_replies_of_each_stage():
    scores = [1.0, 0.2, -0.5]
    # exp(1) against exp(.2 + m) and exp(-.5 + m), then exp(.2) against exp(-.5 + m).
    m = 0.7
    first = math.exp(1.0) / (math.exp(1.0) + math.exp(0.2 + m) + math.exp(-0.5 + m))
    second = math.exp(0.2) / (math.exp(0.2) + math.exp(-0.5 + m))
    found = plackett_luce_loss(torch.tensor(scores), torch.tensor([1, 2, 3]), m)
    assert found.item() == pytest.approx(-math.log(first * second), abs=1e-6)


def test_a_margin_moves_nothing_among_ties():
    scores = torch.tensor([3.0, -1.0], requires_grad=True)
    assert plackett_luce_loss(scores, torch.tensor([1, 1]), 2.0).item() == 0.0


@pytest.mark.parametrize("replies", [2, 3, 4, 5])
def test_effective_comparisons_have_the_variance_of_guessed_orders(replies):
    shares = []
    for order in permutations(range(1, replies + 1)):
        right = sum(order[i] < order[j] for i in range(replies) for j in range(i + 1, replies))
        shares.append(right / math.comb(replies, 2))
    # n independent fair coins have a share of heads with variance 1 / (4 n).
    found = effective_comparisons(torch.arange(replies))
    assert found == pytest.approx(1 / (4 * pvariance(shares)))
