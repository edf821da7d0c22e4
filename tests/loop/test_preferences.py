"""Bradley-Terry and length control against numbers from elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatrlhf.loop.preferences import (
    Vote,
    fit_logistic,
    length_controlled,
    strengths,
)

FREE = math.inf  # no prior


def votes(newer, older, wins, losses, ties=0, words=0.0):
    outcomes = [1.0] * wins + [0.0] * losses + [0.5] * ties
    return [
        Vote(newer, older, outcome, words, f"{newer}/{older}/{index}/{words}")
        for index, outcome in enumerate(outcomes)
    ]


def test_two_versions_differ_by_the_log_odds_of_their_wins():
    # 3 wins of 4: log(3/1).
    found = strengths(votes("v1", "v0", 3, 1), "v0", prior_deviation=FREE)
    assert found["v1"].estimate == pytest.approx(math.log(3.0))
    assert found["v0"] == (0.0, 0.0, 0.0)


def test_a_tie_is_half_a_win():
    # 2 wins, 1 loss, 2 ties: (2 + 1) to (1 + 1).
    found = strengths(votes("v1", "v0", 2, 1, ties=2), "v0", prior_deviation=FREE)
    assert found["v1"].estimate == pytest.approx(math.log(3.0 / 2.0))


def test_a_chain_adds_up():
    # Without a direct vote between v2 and v0 their difference is the sum of the two log-odds.
    chain = votes("v1", "v0", 4, 2) + votes("v2", "v1", 9, 3)
    found = strengths(chain, "v0", prior_deviation=FREE)
    assert found["v2"].estimate == pytest.approx(math.log(2.0) + math.log(3.0))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=3, max_size=3))
def test_three_versions_are_those_of_zermelos_iteration(counts):
    pairs = [("v1", "v0"), ("v2", "v0"), ("v2", "v1")]
    all_votes = [
        vote for pair, (won, lost) in zip(pairs, counts, strict=True)
        for vote in votes(*pair, won, lost)
    ]  # fmt: skip
    found = strengths(all_votes, "v0", prior_deviation=FREE, resamples=2)
    expected = zermelo(pairs, counts)
    for name in ("v1", "v2"):
        assert found[name].estimate == pytest.approx(expected[name], abs=1e-6)


def zermelo(pairs, counts):
    """Strengths by the minorise-maximise iteration of Zermelo (1929) and Hunter (2004)."""
    skill = {"v0": 1.0, "v1": 1.0, "v2": 1.0}
    for _ in range(20_000):
        fresh = {}
        for name in skill:
            won, met = 0.0, 0.0
            for (newer, older), (wins, losses) in zip(pairs, counts, strict=True):
                if name in (newer, older):
                    won += wins if name == newer else losses
                    met += (wins + losses) / (skill[newer] + skill[older])
            fresh[name] = won / met
        moved = max(abs(fresh[name] / fresh["v0"] - skill[name] / skill["v0"]) for name in skill)
        skill = {name: value / fresh["v0"] for name, value in fresh.items()}
        if moved < 1e-13:
            break
    return {name: math.log(value) for name, value in skill.items()}


def test_versions_that_nobody_compared_with_the_anchor_are_left_out():
    apart = votes("v1", "v0", 2, 1) + votes("v5", "v4", 3, 1)
    assert set(strengths(apart, "v0")) == {"v0", "v1"}
    assert set(strengths(apart, "v5")) == {"v4", "v5"}
    assert strengths([], "v3") == {}


def test_all_wins_stay_finite_and_sure():
    found = strengths(votes("v1", "v0", 12, 0), "v0")["v1"]
    assert 2.0 < found.estimate < 10.0
    assert found.low > 0.4


@pytest.mark.parametrize(("wins", "low"), [(2, 0.27), (4, 0.38), (8, 0.52), (12, 0.62)])
def test_votes_that_all_went_one_way_leave_doubt(wins, low):
    # By hand: with z^2 / 2 = 1.92 votes more each way the log-odds are log((wins + 1.92) / 1.92)
    # and their variance 1 / (wins + 1.92) + 1 / 1.92.
    found = strengths(votes("v1", "v0", wins, 0), "v0")["v1"]
    more = 1.959964**2 / 2
    deviation = math.sqrt(1 / (wins + more) + 1 / more)
    expected = math.log((wins + more) / more) - 1.959964 * deviation
    assert found.low == pytest.approx(expected, abs=1e-5)
    assert 1 / (1 + math.exp(-found.low)) == pytest.approx(low, abs=0.005)
    lost = strengths(votes("v1", "v0", 0, wins), "v0")["v1"]
    assert (lost.low, lost.high) == pytest.approx((-found.high, -found.low), abs=1e-5)


def test_the_bootstrap_draws_prompts_not_votes():
    alone = votes("v1", "v0", 30, 10)
    # The same votes, but only on two prompts: one that is always won, one always lost.
    shared = [Vote(vote.newer, vote.older, vote.outcome, 0.0, str(vote.outcome)) for vote in alone]
    one, two = strengths(alone, "v0")["v1"], strengths(shared, "v0")["v1"]
    assert one.estimate == pytest.approx(two.estimate)
    assert one.low > 0.2
    assert two.low < -2.0
    assert two.high > 2.0


def test_the_bootstrap_is_about_as_wide_as_theory_says():
    # The deviation of log-odds is about sqrt(1 / (n p q)).
    found = strengths(votes("v1", "v0", 70, 30), "v0", prior_deviation=FREE)["v1"]
    theory = 1.96 * math.sqrt(1 / (100 * 0.7 * 0.3))
    assert (found.high - found.low) / 2 == pytest.approx(theory, rel=0.15)


def test_one_prompt_bounds_nothing():
    same = [Vote("v1", "v0", 1.0, 0.0, "p")] * 5
    assert strengths(same, "v0")["v1"].low == -math.inf


def test_the_win_rate_at_equal_length_of_two_lengths_is_the_mean_log_odds():
    # Two groups, 10 words longer and 10 shorter, in equal number: the fit is saturated, so the
    # log-odds at no difference are the mean of the two groups' log-odds.
    longer = votes("v1", "v0", 16, 4, words=10.0)
    shorter = votes("v1", "v0", 8, 12, words=-10.0)
    found = length_controlled(longer + shorter, prior_deviation=FREE)
    bias = (math.log(16 / 4) + math.log(8 / 12)) / 2
    assert found.estimate == pytest.approx(1 / (1 + math.exp(-bias)))
    assert found.low < found.estimate < found.high


def test_unequal_groups_weigh_by_their_distance_from_zero():
    # 30 words longer and 10 shorter: the line through the two log-odds, read at 0.
    longer = votes("v1", "v0", 15, 5, words=30.0)
    shorter = votes("v1", "v0", 6, 14, words=-10.0)
    found = length_controlled(longer + shorter, prior_deviation=FREE)
    bias = 0.25 * math.log(15 / 5) + 0.75 * math.log(6 / 14)
    assert found.estimate == pytest.approx(1 / (1 + math.exp(-bias)))


def test_length_is_not_controlled_where_it_cannot_be():
    assert length_controlled(votes("v1", "v0", 6, 3)) is None  # too few
    assert length_controlled(votes("v1", "v0", 20, 3, words=7.0)) is None  # all differ alike


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.floats(-50, 50)), min_size=10, max_size=40
    )
)
def test_the_fit_is_where_the_slope_vanishes(rows):
    targets = np.array([outcome for outcome, _ in rows])
    design = np.stack([np.ones(len(rows)), np.array([words for _, words in rows]) / 20], axis=1)
    (found,) = fit_logistic(design, targets, np.ones((1, len(rows))), 3.0)
    chance = 1 / (1 + np.exp(-design @ found))
    slope = design.T @ (targets - chance) - found / 9
    assert np.abs(slope).max() < 1e-6


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 5))
def test_swapping_the_sides_mirrors_the_strength(wins, losses, ties):
    one = strengths(votes("v1", "v0", wins, losses, ties), "v0", resamples=2)["v1"].estimate
    other = strengths(votes("v1", "v0", losses, wins, ties), "v0", resamples=2)["v1"].estimate
    assert one == pytest.approx(-other, abs=1e-9)
