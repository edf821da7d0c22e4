"""Results as they come, in one JSON file, and the tables made from them.

The file is written again after each result, whole or not at all, and a result that it holds is
not computed again: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

Json = dict[str, Any]


class Results:
    """Results by their key: part and seed, for human pairs method and size too."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.entries: list[Json] = []
        if path is not None and path.exists():
            self.entries = json.loads(path.read_text())["results"]

    def has(self, key: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
        """Whether this result is there already.

        Raises:
            SystemExit: it is, but made with other settings.
        """
        for entry in self.entries:
            if all(entry.get(name) == value for name, value in key.items()):
                if entry["settings"] != json.loads(json.dumps(settings)):
                    named = ", ".join(f"{name} {value}" for name, value in key.items())
                    raise SystemExit(
                        f"{self._path} holds {named}, made with other settings. "
                        "Name another file, or run with the same settings."
                    )
                return True
        return False

    def add(self, key: Mapping[str, Any], settings: Mapping[str, Any], found: Json) -> None:
        """Keep a result and write the file."""
        measured_on = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        entry = {**key, **found, "settings": dict(settings), "measured_on": measured_on}
        self.entries.append(entry)
        if self._path is not None:
            temporary = self._path.with_name(f"{self._path.name}.tmp")
            temporary.write_text(json.dumps({"results": self.entries}, indent=1) + "\n")
            temporary.replace(self._path)

    def of(self, part: str) -> list[Json]:
        """Results of one part, by seed."""
        chosen = [entry for entry in self.entries if entry["part"] == part]
        return sorted(chosen, key=lambda entry: entry.get("seed", -1))


def policy_table(entries: Sequence[Json], part: str) -> str:
    """A line a seed, and how many seeds rose surely; Markdown."""
    lines = [
        "| seed | true score before | after | difference (95%, paired by prompt) "
        "| KL, nats a reply | tokens a reply | end by themselves |",
        "|---|---|---|---|---|---|---|",
    ]
    if part == "learned":
        lines[0] += " score by the reward model | pairs of unseen prompts right |"
        lines[1] += "---|---|"
    for entry in entries:
        line = (
            f"| {entry['seed']} | {entry['true_score_before']:.3f} "
            f"| {entry['true_score_after']:.3f} | {difference_text(entry['difference'])} "
            f"| {entry['kl']:.1f} "
            f"| {entry['reply_tokens_before']:.0f} -> {entry['reply_tokens_after']:.0f} "
            f"| {entry['finished_before']:.0%} -> {entry['finished_after']:.0%} |"
        )
        if part == "learned":
            model = entry["reward_model"]
            line += (
                f" {entry['given_score_before']:+.2f} -> {entry['given_score_after']:+.2f} "
                f"| {model['right']} of {model['pairs']} ({model['accuracy']:.0%}) |"
            )
        lines.append(line)
    up = sum(entry["difference"]["low"] > 0 for entry in entries)
    down = sum(entry["difference"]["high"] < 0 for entry in entries)
    lines += ["", f"{up} of {len(entries)} seeds rose and {down} fell beyond their interval."]
    return "\n".join(lines)


def curve_table(entries: Sequence[Json], names: Sequence[str], lines_shown: int = 6) -> str:
    """Means over seeds, with the least and the most, at some iterations; Markdown."""
    iterations = min(len(entry["curve"]) for entry in entries)
    shown = sorted(
        {round(1 + i * (iterations - 1) / (lines_shown - 1)) for i in range(lines_shown)}
    )
    lines = [
        f"| iteration | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]
    for iteration in shown:
        cells = []
        for name in names:
            values = [entry["curve"][iteration - 1][name] for entry in entries]
            mean = sum(values) / len(values)
            cells.append(f"{mean:.2f} ({min(values):.2f} to {max(values):.2f})")
        lines.append(f"| {iteration} | {' | '.join(cells)} |")
    return "\n".join(lines)


def human_table(entries: Sequence[Json]) -> str:
    """A line a fit; Markdown."""
    lines = [
        "| method | training pairs | seed | held-out pairs ordered as people did | 95% interval "
        "(Wilson) | calibration error | correlation with length | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in sorted(entries, key=lambda one: (one["method"], one["train_pairs"], one["seed"])):
        low, high = entry["interval"]
        lines.append(
            f"| {entry['method']} | {entry['train_pairs']} | {entry['seed']} "
            f"| {entry['right']} of {entry['held_out_pairs']} ({entry['accuracy']:.1%}) "
            f"| {low:.1%} to {high:.1%} | {entry['calibration_error']:.3f} "
            f"| {entry['length_correlation']:+.2f} | {entry['seconds']:.0f} |"
        )
    return "\n".join(lines)


def difference_text(difference: Mapping[str, float]) -> str:
    """An estimate and its interval."""
    return f"{difference['estimate']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
