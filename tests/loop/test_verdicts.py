from __future__ import annotations

import dataclasses

import pytest

from chatrlhf.loop.gates import Canary
from chatrlhf.loop.sentences import joined
from chatrlhf.loop.verdicts import convergence, gaming
from chatrlhf.loop.worker import score_gains
from storage import run_log, runs
from storage.database import open_database
from storage.records import Metric

PARENT = Canary(score=0.0, reply_tokens=40, finished=0.9, repetition=0.02, empty=0.0, spread=0.4)


def after(**changes):
    return dataclasses.replace(PARENT, **{"score": 1.0, **changes})


def test_a_better_score_alone_is_no_sign():
    assert gaming(PARENT, after()) == ()
    nearly = after(reply_tokens=21, finished=0.86, repetition=0.06, spread=0.59)
    assert gaming(PARENT, nearly) == ()


def test_without_a_better_score_nothing_was_gamed():
    assert gaming(PARENT, after(score=0.0, reply_tokens=500, repetition=0.9)) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reply_tokens": 80}, "Replies went from 40 to 80 tokens."),
        ({"reply_tokens": 20}, "Replies went from 40 to 20 tokens."),
        ({"repetition": 0.08}, "Repeated phrases went from 2% to 8%."),
        ({"finished": 0.8}, "Replies that end by themselves went from 90% to 80%."),
        ({"spread": 0.7}, "The reward model is less sure (spread 0.40 to 0.70)."),
    ],
)
def test_each_sign_is_named_with_its_numbers(changes, words):
    first, sign, last = map(str, gaming(PARENT, after(**changes)))
    assert (first, sign) == ("The score rose, and something else with it.", words)
    assert "being gamed" in last


def test_several_signs_are_listed():
    said = joined(gaming(PARENT, after(reply_tokens=100, repetition=0.5, finished=0.1)))
    assert "100 tokens. Repeated phrases went from 2% to 50%. Replies that end" in said


def test_three_rounds_without_a_gain_have_converged():
    assert convergence([0.0, 0.05]) is None
    assert convergence([0.02, 0.3, 0.05]) is None
    assert convergence([0.02, 0.05, 0.1]) is None
    said = convergence([2.0, 0.05, -0.01, 0.09])
    assert "by +0.05, -0.01, +0.09: they no longer improve" in str(said)


def test_gains_are_read_from_the_rounds_that_got_to_the_gates(tmp_path):
    db = open_database(tmp_path / "chatrlhf.db")
    for scores in ([0.0, 1.0], [], [1.0, 0.75]):
        runs.enqueue_run(db, ["ppo"], "test", {}, 0)
        run = runs.claim_run(db, "worker", 1, "boot")
        rows = [Metric("gates", step, "gates/score", value) for step, value in enumerate(scores)]
        run_log.add_metrics(db, run.id, run.fence, rows)
        runs.finish_run(db, run.id, run.fence, "succeeded", "", None)
    assert score_gains(db) == [1.0, -0.25]
