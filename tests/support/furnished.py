"""A team with something on every screen: chats, ratings, rounds with curves, duels, people."""

from __future__ import annotations

import random

from duelled import duel, foretell, turn_of

from chatrlhf.app import App
from chatrlhf.loop.gates import demonstration_gate
from chatrlhf.loop.progress import RunProgress
from chatrlhf.loop.sentences import say
from storage import conversations, demonstrations, invitations, labels, rankings, runs, versions
from storage.database import Database
from storage.records import Metric, Sample

# Enough that the history can be searched.
TITLES = ("Tides", "Rice and eggs", "A late train", "Names for a cat", "Salt", "Rain", "Bread")
CURVES = (
    ("sft", "loss"),
    ("reward", "loss"),
    ("ppo", "score"),
    ("ppo", "kl"),
    ("ppo", "entropy"),
    ("ppo", "grad_norm"),
)
MARKDOWN = """# Tides

The **moon** pulls the *sea*: see [a page](https://example.org/tides).

| when | how high |
|---|---|
| noon | 3 m |

```python
print("high")
```

It is $h = \\frac{a}{2}$ high."""


def furnish(app: App, person: int, other: int) -> None:
    """Write the rows that two people and a trainer would have left; v1 is live afterwards."""
    db = app.db
    versions.promote(db, "v1", "test")
    app.live.poke()
    versions.register_version(db, "v2", "v1", None, "", {"rankings": 20}, "A second try.")
    for title in TITLES:
        conversations.create_conversation(db, person, title=title)
    _feedback(db, person, other)
    _finished_round(db)
    _running_round(db)
    for note in ("Kim", "Tim"):
        invitations.invite(db, "rater", note=note, by=person)


def _feedback(db: Database, person: int, other: int) -> None:
    won = [
        duel(
            db,
            person if index % 3 else other,
            "v1",
            "v0",
            int(index < 9),
            f"Question {index}",
            more=index % 5,
        )
        for index in range(14)
    ]
    foretell(db, [(one, 2 + index % 4) for index, one in enumerate(won)], "v0")
    bad = turn_of(db, person, ["v0"] * 4, "Name a colour.", "policy")
    rankings.save_ranking(db, bad.id, person, {}, all_bad=True, comment="None is a colour.")
    labels.save_label(db, bad.replies[0].id, person, "wrong", True)
    demonstrations.save_demonstration(db, person, "Blue.", turn_id=bad.id)


def _finished_round(db: Database) -> None:
    run = _round_with_curves(db)
    RunProgress(db, run).event("gate_failed", *demonstration_gate(2.5, 2.75).sentences)
    reason = "Not promoted: the reward model is no better than chance."
    runs.finish_run(db, run.id, run.fence, "succeeded", reason, None)


def _running_round(db: Database) -> None:
    run = _round_with_curves(db)
    runs.heartbeat(
        db, run.id, run.fence, stage="ppo", step=3, steps=24, eta_seconds=120.0, message=""
    )


def _round_with_curves(db: Database) -> runs.Run:
    runs.enqueue_run(db, ("sft", "reward", "ppo"), "test", {}, 0)
    run = runs.claim_run(db, "test", 1, "boot")
    assert run is not None
    draws = random.Random(3)
    metrics = [
        Metric(stage, step, name, draws.random()) for stage, name in CURVES for step in range(1, 7)
    ]
    metrics += [Metric("gates", 0, "score", 0.25), Metric("gates", 1, "score", 0.75)]
    runs.add_metrics(db, run.id, run.fence, metrics)
    progress = RunProgress(db, run)
    progress.event("info", say("PPO goes on at iteration {iteration}.", iteration=3))
    progress.event("gate_passed", say("That is better than chance."))
    terms = {"ranking": 0.75, "label:toxic": -0.25}
    sample = Sample("ppo", 3, "Name a colour.", "Blue is one.", 0.5, terms=terms)
    runs.add_samples(db, run.id, run.fence, [sample])
    return run
