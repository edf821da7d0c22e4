"""Is it better? Versions on the same held-out prompts, judged by the rater's true score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from chatrlhf.loop.intervals import Interval, bootstrap_interval

BASELINE = "v0"


@dataclass(frozen=True)
class PromptResult:
    """The replies of one version to one held-out prompt: true scores, words, natural ends."""

    prompt_id: int
    scores: tuple[float, ...]
    words: tuple[int, ...]
    stopped: tuple[bool, ...]


Results = Mapping[str, Sequence[PromptResult]]


def summarise(results: Results, seed: int) -> list[dict[str, Any]]:
    """One row a version: means, and paired differences to v0 with 95% bootstrap intervals.

    Prompts are the units: differences are taken prompt by prompt over the prompts that both
    versions answered.
    """
    baseline = {item.prompt_id: item for item in results.get(BASELINE, ())}
    rows = []
    for version, items in results.items():
        if not items:
            continue
        row: dict[str, Any] = {
            "version": version,
            "prompts": len(items),
            "replies": sum(len(item.scores) for item in items),
            "mean_score": float(np.mean([np.mean(item.scores) for item in items])),
            "mean_words": float(np.mean([np.mean(item.words) for item in items])),
            "share_ended_by_itself": float(np.mean([np.mean(item.stopped) for item in items])),
            "score_difference": None,
            "words_difference": None,
        }
        pairs = [(item, baseline[item.prompt_id]) for item in items if item.prompt_id in baseline]
        if version != BASELINE and pairs:
            scores = [np.mean(new.scores) - np.mean(old.scores) for new, old in pairs]
            words = [np.mean(new.words) - np.mean(old.words) for new, old in pairs]
            row["score_difference"] = _as_dict(bootstrap_interval(np.array(scores), seed=seed))
            row["words_difference"] = _as_dict(bootstrap_interval(np.array(words), seed=seed))
            row["paired_prompts"] = len(pairs)
        rows.append(row)
    return rows


def comparison_table(rows: Sequence[Mapping[str, Any]], rater: str) -> Table:
    """The rows of ``summarise`` for a terminal."""
    table = Table(title=f"Held-out prompts, judged by {rater!r} (95% intervals over prompts)")
    table.add_column("version")
    for heading in ("mean score", "against v0", "words a reply", "against v0", "ended by itself"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["version"],
            f"{row['mean_score']:.3f}",
            _difference_text(row["score_difference"], 3),
            f"{row['mean_words']:.1f}",
            _difference_text(row["words_difference"], 1),
            f"{100 * row['share_ended_by_itself']:.0f}%",
        )
    return table


def _as_dict(interval: Interval) -> dict[str, float | None]:
    # JSON has no infinity: an unbounded end is null.
    return {
        name: value if math.isfinite(value) else None for name, value in interval._asdict().items()
    }


def _difference_text(difference: Mapping[str, float | None] | None, digits: int) -> str:
    if difference is None:
        return "-"
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return f"{difference['estimate']:+.{digits}f}"
    return f"{difference['estimate']:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
