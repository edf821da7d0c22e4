"""When a round is due, and how it enters the queue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from chatrlhf.errors import BadInputError
from chatrlhf.settings import Settings
from storage import rankings, runs
from storage.database import Database
from storage.records import Run, Stage

# SFT does nothing without enough new demonstrations, so it may stand in every round.
ALL_STAGES: tuple[Stage, ...] = ("sft", "reward", "ppo")

# What a round is resumed with, whatever the settings are by then.
_ROUND_GROUPS = ("sft", "reward", "ppo", "round")
_REMEMBERED_RUNS = 50


def new_rankings(db: Database) -> int:
    """Active rankings that no round has taken in, nor a failed round has tried."""
    return rankings.count_new(db, _baseline(db))


def rankings_until_round(settings: Settings, db: Database) -> int:
    """How many more rankings start the next automatic round; 0 when it is due."""
    return max(0, settings.round.refit_every - new_rankings(db))


def next_refit_in(settings: Settings, db: Database) -> int | None:
    """As ``rankings_until_round``, but None where rounds start on request only."""
    return rankings_until_round(settings, db) if settings.round.automatic else None


def enqueue_round(settings: Settings, db: Database, stages: Sequence[Stage], by: str) -> Run:
    """Put a round into the queue.

    Raises:
        BadInputError: no stage, or an unknown one.
        ConflictError: a round is queued or running already.
    """
    unknown = [stage for stage in stages if stage not in ALL_STAGES]
    if unknown or not stages:
        wanted = ", ".join(unknown) or "none"
        raise BadInputError(f"Unknown stage: {wanted}. The stages are sft, reward and ppo.")
    ordered = tuple(stage for stage in ALL_STAGES if stage in stages)
    # A round without a reward model takes in no rankings: they stay new.
    seen = max(_baseline(db), rankings.newest_id(db) if "reward" in ordered else 0)
    return runs.enqueue_run(db, ordered, by, _round_settings(settings), seen)


def _baseline(db: Database) -> int:
    """Greatest ranking id that a round has seen, however it ended.

    A failed or cancelled round counts too: trying again with the same rankings would fail
    again, so the next attempt waits for further ones.
    """
    seen = [run.last_ranking_id for run in runs.list_runs(db, _REMEMBERED_RUNS)]
    return max([runs.last_trained_ranking_id(db), *seen])


def _round_settings(settings: Settings) -> dict[str, Any]:
    return {group: dataclasses.asdict(getattr(settings, group)) for group in _ROUND_GROUPS}
