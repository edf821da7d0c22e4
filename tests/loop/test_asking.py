"""When a turn is to be ranked: how sure the reward model is, worked out by hand."""

from __future__ import annotations

import pytest

from chatrlhf.engine.requests import ReplyScore
from chatrlhf.loop.asking import judge, sureness
from chatrlhf.loop.turn_events import Doubt


def scores(*pairs):
    return [ReplyScore(total, {}, spread) for total, spread in pairs]


def test_sureness_is_the_chance_that_the_best_beats_the_next():
    # A gap of 1 with spreads 0.6 and 0.8, so 1.0 together: Phi(1) = 0.8413.
    assert sureness(scores((0.0, 0.6), (1.0, 0.8), (-3.0, 9.0))) == pytest.approx(0.8413, abs=1e-4)


def test_equal_scores_leave_it_open():
    assert sureness(scores((0.4, 0.1), (0.4, 0.2))) == 0.5
    assert sureness(scores((0.4, 0.0), (0.4, 0.0))) == 0.5


def test_without_a_spread_the_candidates_own_deviation_counts():
    # Scores 0, 0, 0 and 2 deviate by sqrt(0.75) = 0.8660; Phi(2 / 0.8660) = 0.9895.
    found = sureness(scores((0.0, 0.0), (0.0, 0.0), (2.0, 0.0), (0.0, 0.0)))
    assert found == pytest.approx(0.9895, abs=1e-4)


def test_a_turn_is_asked_below_the_threshold_and_else_by_chance():
    close, clear = scores((0.0, 1.0), (0.1, 1.0)), scores((0.0, 0.1), (5.0, 0.1))
    assert judge(Doubt(0.9, 0.0), close, seed=1).asks
    assert not judge(Doubt(0.9, 0.0), clear, seed=1).asks
    assert judge(Doubt(0.9, 1.0), clear, seed=1).asks
    asked = sum(judge(Doubt(0.9, 0.1), clear, seed).asks for seed in range(1000))
    assert 70 < asked < 130


def test_the_same_seed_decides_the_same():
    clear = scores((0.0, 0.1), (5.0, 0.1))
    decisions = [judge(Doubt(0.9, 0.5), clear, seed=7).asks for _ in range(5)]
    assert len(set(decisions)) == 1
