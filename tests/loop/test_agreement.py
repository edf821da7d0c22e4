"""Agreement between people and with oneself, against published and hand-made numbers."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatrlhf.loop.agreement import (
    agreement_between,
    consistency_of,
    mean_ranks,
    ordinal_alpha,
    pairs_alike,
)
from storage.records import RepeatedRanking

# Krippendorff (2011), section C: four observers, twelve units, "." is missing.
BOOK = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 ."]  # fmt: skip


def units_of(observers):
    columns = zip(*(line.split() for line in observers), strict=True)
    return [[int(value) for value in column if value != "."] for column in columns]


def alpha_by_pairs(units):
    """The definition: mean distance within units over mean distance of all values."""
    units = [unit for unit in units if len(unit) > 1]
    everything = [value for unit in units for value in unit]

    def distance(one, other):
        low, high = min(one, other), max(one, other)
        between = sum(low <= value <= high for value in everything)
        ends = everything.count(low) + everything.count(high)
        return (between - ends / 2) ** 2 if low != high else 0.0

    observed = sum(
        sum(distance(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1)
        for unit in units
    ) / len(everything)
    n = len(everything)
    expected = sum(distance(a, b) for a, b in itertools.permutations(everything, 2)) / n / (n - 1)
    return 1 - observed / expected


def test_the_published_example():
    assert ordinal_alpha(units_of(BOOK)) == pytest.approx(0.815, abs=0.0005)


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=2, max_size=8))
def test_alpha_is_what_the_definition_gives(units):
    paired = {value for unit in units if len(unit) > 1 for value in unit}
    if len(paired) < 2:
        assert ordinal_alpha(units) is None
    else:
        assert ordinal_alpha(units) == pytest.approx(alpha_by_pairs(units), abs=1e-9)


def test_full_agreement_is_one_and_opposite_orders_are_far_below_zero():
    assert ordinal_alpha([[1, 1], [2, 2], [3, 3]]) == 1
    assert ordinal_alpha([[1, 3], [2, 2], [3, 1]]) < -0.5


def test_random_orders_agree_no_more_than_chance():
    rng, orders = random.Random(3), list(itertools.permutations((1, 2, 3, 4)))
    shared = {
        turn: {person: dict(zip("abcd", rng.choice(orders), strict=True)) for person in (1, 2)}
        for turn in range(2000)
    }
    assert agreement_between(shared).alpha == pytest.approx(0.0, abs=0.05)


def test_ties_share_their_places():
    assert mean_ranks([1, 2, 2, 3]) == [1, 2.5, 2.5, 4]
    assert mean_ranks([1, 1]) == [1.5, 1.5]


def test_the_sentence_says_on_what_it_rests():
    alike = {1: {7: 1, 8: 2, 9: 3}, 2: {7: 1, 8: 2, 9: 3}}
    few = agreement_between({1: alike})
    assert (few.alpha, few.items, few.people) == (1.0, 1, 2)
    assert "on 1 item that 2 people ranked: too few to rely on" in few.sentence
    many = agreement_between(dict.fromkeys(range(10), alike))
    assert "alpha is 1.00 on 10 items that 2 people ranked: people agree well." in many.sentence
    opposed = {1: {7: 1, 8: 2, 9: 3}, 2: {7: 3, 8: 2, 9: 1}}
    assert "no more than chance" in agreement_between(dict.fromkeys(range(10), opposed)).sentence
    nobody = agreement_between({})
    assert nobody.alpha is None
    assert "No two people" in nobody.sentence


def test_pairs_of_a_repeat_that_are_ordered_alike():
    assert pairs_alike(RepeatedRanking(1, (1, 2, 3, 4), (1, 2, 3, 4))) == 1
    assert pairs_alike(RepeatedRanking(1, (1, 2, 3, 4), (4, 3, 2, 1))) == 0
    assert pairs_alike(RepeatedRanking(1, (1, 2, 3, 4), (1, 3, 2, 4))) == pytest.approx(5 / 6)
    assert pairs_alike(RepeatedRanking(1, (1, 2), (1, 1))) == 0.5
    assert pairs_alike(RepeatedRanking(1, (1, 1), (1, 1))) == 1


def test_consistency_is_a_share_of_repeats_with_wilsons_interval():
    repeats = [RepeatedRanking(1, (1, 2), (1, 2))] * 8 + [RepeatedRanking(1, (1, 2), (2, 1))] * 2
    found = consistency_of(repeats)
    assert found.repeats == 10
    # Wilson (1927) for 8 of 10: 0.490 to 0.943
    assert tuple(found.share) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert "In 10 hidden repeats you ordered 80% of the pairs as before" in found.sentence
    none = consistency_of([])
    assert math.isnan(none.share.estimate)
    assert "asks you something again" in none.sentence
    assert "1 hidden repeat you" in consistency_of(repeats[:1]).sentence
