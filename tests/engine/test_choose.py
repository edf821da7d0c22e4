"""Which candidates are shown: by hand, by counting, and for any scores."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatrlhf.engine.choose import Candidate, Shown, choose

POLICIES = ["random", "best", "best-and-random"]


def candidates(*scores, texts=None):
    given = texts or [f"reply {row}" for row in range(len(scores))]
    pairs = zip(given, scores, strict=True)
    return [Candidate(row, text, score) for row, (text, score) in enumerate(pairs)]


def rows(shown):
    return [one.row for one in shown]


def test_best_shows_the_highest_scores():
    made = candidates(0.5, -2.0, 3.0, 1.0, 2.0, -1.0)
    shown = choose("best", made, 3, seed=1)
    assert sorted(rows(shown)) == [2, 3, 4]
    assert {(one.slot_type, one.propensity) for one in shown} == {("best", 1.0)}


def test_best_and_random_always_has_the_best_and_every_other_alike_often():
    made = candidates(0.5, -2.0, 3.0, 1.0, 2.0, -1.0, 0.0, 0.1)
    times = Counter()
    for seed in range(2000):
        shown = choose("best-and-random", made, 4, seed)
        assert len(set(rows(shown))) == 4
        slots = {one.row: (one.slot_type, one.propensity) for one in shown}
        assert slots.pop(2) == ("best", 1.0)
        assert set(slots.values()) == {("random", 3 / 7)}
        times.update(slots.keys())
    expected = 2000 * 3 / 7
    assert set(times) == {0, 1, 3, 4, 5, 6, 7}
    assert all(abs(count - expected) < 5 * (expected * 4 / 7) ** 0.5 for count in times.values())


def test_random_takes_no_notice_of_scores():
    times = Counter()
    for seed in range(2000):
        shown = choose("random", candidates(9.0, -9.0, 0.0, 5.0), 2, seed)
        assert {(one.slot_type, one.propensity) for one in shown} == {("random", 0.5)}
        times.update(rows(shown))
    assert all(abs(times[row] - 1000) < 5 * (2000 * 0.25) ** 0.5 for row in range(4))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_position_is_alike_likely_for_the_best(policy):
    made = candidates(1.0, 4.0, 2.0, 3.0)
    places = Counter(rows(choose(policy, made, 4, seed)).index(1) for seed in range(2000))
    assert all(abs(places[place] - 500) < 5 * (2000 * 0.1875) ** 0.5 for place in range(4))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_chooses_the_same(policy):
    made = candidates(0.3, 0.1, 0.2, 0.9, 0.5, 0.4)
    choices = [choose(policy, made, 3, seed) for seed in range(20)]
    assert choices == [choose(policy, made, 3, seed) for seed in range(20)]
    assert len(set(choices)) > 1


def test_a_text_is_shown_once_while_there_are_others():
    texts = ["Yes.", " yes. ", "No.", "Yes.", "Perhaps.", "Maybe."]
    made = candidates(5.0, 4.0, 1.0, 6.0, 2.0, 0.0, texts=texts)
    assert sorted(rows(choose("best", made, 3, seed=0))) == [2, 3, 4]
    for seed in range(50):
        shown = {one.row: one for one in choose("best-and-random", made, 3, seed)}
        assert shown[3].slot_type == "best"
        assert shown.keys() <= {2, 3, 4, 5}
        others = [one for row, one in shown.items() if row != 3]
        assert [one.propensity for one in others] == [pytest.approx(2 / 3)] * 2


def test_repeated_texts_fill_up_what_is_missing():
    made = candidates(1.0, 3.0, 2.0, 0.0, texts=["a", "a", "b", "a"])
    assert sorted(rows(choose("best", made, 3, seed=0))) == [0, 1, 2]
    for seed in range(30):
        shown = {one.row: one for one in choose("best-and-random", made, 3, seed)}
        assert shown[1] == Shown(1, "best", 1.0)
        assert shown[2] == Shown(2, "random", 1.0)
        (third,) = shown.keys() - {1, 2}
        assert shown[third] == Shown(third, "random", 0.5)


def test_of_equal_scores_the_earlier_is_better():
    assert rows(choose("best", candidates(1.0, 1.0, 1.0), 1, seed=3)) == [0]


@pytest.mark.parametrize("shown", [0, 3])
def test_more_than_there_are_cannot_be_shown(shown):
    with pytest.raises(ValueError, match=f"{shown} of 2 candidates"):
        choose("best", candidates(1.0, 2.0), shown, seed=0)


@given(
    st.sampled_from(POLICIES),
    st.lists(st.tuples(st.sampled_from("abcde"), st.floats(-10, 10)), min_size=1, max_size=8),
    st.data(),
)
def test_a_choice_is_whole_and_its_propensities_add_up(policy, made, data):
    several = [Candidate(row, text, score) for row, (text, score) in enumerate(made)]
    count = data.draw(st.integers(1, len(several)))
    shown = choose(policy, several, count, data.draw(st.integers(0, 2**63 - 1)))
    assert len({one.row for one in shown}) == len(shown) == count
    assert all(0.0 < one.propensity <= 1.0 for one in shown)
    best = max(one.score for one in several)
    if policy != "random":
        assert max(several[one.row].score for one in shown) == best
        assert len({several[one.row].text for one in shown}) == min(count, len(set(dict(made))))
