"""Curves of the learning benchmark: every seed a thin line, their mean a thick one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Json = dict[str, Any]

BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#c05621", "#2f855a", "#4a5568"
METHOD_COLOURS = {"head": BLUE, "head-starter": GREEN, "adapter": ORANGE, "trl": GREY}


def plot_direct(entries: Sequence[Json], folder: Path) -> Path:
    """True score, KL, entropy and length over the iterations."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2).flat
    panels = (
        ("true_score", "true score of the replies", BLUE),
        ("kl", "KL to the start, nats a reply", ORANGE),
        ("entropy", "entropy, nats a token", GREEN),
        ("reply_tokens", "tokens a reply", GREY),
    )
    for axis, (name, title, colour) in zip(axes, panels, strict=True):
        _lines(axis, [[row[name] for row in entry["curve"]] for entry in entries], colour)
        axis.set_title(title)
        axis.set_xlabel("iteration")
    figure.suptitle(f"PPO on the rater's own score, {_seeds(entries)}")
    return _save(figure, folder / "learning-direct.png")


def plot_learned(entries: Sequence[Json], folder: Path) -> Path:
    """What the reward model says and what is true, in the same unit, and the KL."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    (over_time, over_kl), (kl, length) = figure.subplots(2, 2)
    proxy = [[row["score"] for row in entry["curve"]] for entry in entries]
    true = [
        [
            (row["true_score"] - entry["true_score_mean"]) / entry["true_score_deviation"]
            for row in entry["curve"]
        ]
        for entry in entries
    ]
    distance = [[row["kl"] for row in entry["curve"]] for entry in entries]
    _lines(over_time, proxy, ORANGE, "reward model (what PPO sees)")
    _lines(over_time, true, BLUE, "true score")
    over_time.set_title("score, in deviations of the start's replies")
    over_time.set_xlabel("iteration")
    over_time.legend()
    for one_kl, one_proxy, one_true in zip(distance, proxy, true, strict=True):
        over_kl.plot(one_kl, one_proxy, ".", color=ORANGE, alpha=0.5)
        over_kl.plot(one_kl, one_true, ".", color=BLUE, alpha=0.5)
    over_kl.set_title("the same, against the distance travelled")
    over_kl.set_xlabel("KL to the start, nats a reply")
    _lines(kl, distance, GREEN)
    kl.set_title("KL to the start, nats a reply")
    kl.set_xlabel("iteration")
    _lines(length, [[row["reply_tokens"] for row in e["curve"]] for e in entries], GREY)
    length.set_title("tokens a reply")
    length.set_xlabel("iteration")
    figure.suptitle(f"PPO on a reward model fitted to simulated rankings, {_seeds(entries)}")
    return _save(figure, folder / "learning-learned.png")


def plot_human(entries: Sequence[Json], folder: Path) -> Path:
    """Agreement on held-out pairs over the number of training pairs."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for shift, (method, colour) in enumerate(METHOD_COLOURS.items()):
        own = [entry for entry in entries if entry["method"] == method]
        if not own:
            continue
        sizes = sorted({entry["train_pairs"] for entry in own})
        means, lows, highs = [], [], []
        for size in sizes:
            rows = [entry for entry in own if entry["train_pairs"] == size]
            means.append(np.mean([row["accuracy"] for row in rows]))
            lows.append(means[-1] - np.mean([row["interval"][0] for row in rows]))
            highs.append(np.mean([row["interval"][1] for row in rows]) - means[-1])
        moved = [size * 1.03**shift for size in sizes]  # so that the bars do not hide each other
        axis.errorbar(
            moved, means, [lows, highs], color=colour, label=method, capsize=3, marker="o"
        )
    axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":", label="chance")
    for entry in (entry for entry in entries if entry["method"] == "longer"):
        axis.axhline(
            entry["accuracy"],
            color="black",
            linewidth=0.8,
            linestyle="--",
            label="the longer reply",
        )
    axis.set_xscale("log")
    asked = sorted({entry["train_pairs"] for entry in entries if entry["train_pairs"]})
    axis.set_xticks(asked, [str(size) for size in asked])
    axis.minorticks_off()
    axis.set_xlabel("training pairs")
    axis.set_ylabel("held-out pairs ordered as people did")
    axis.set_title("Reward models on human preferences, 95% Wilson intervals")
    axis.legend()
    return _save(figure, folder / "learning-human.png")


def _lines(axis: Axes, curves: Sequence[Sequence[float]], colour: str, label: str = "") -> None:
    shortest = min(len(curve) for curve in curves)
    values = np.array([curve[:shortest] for curve in curves])  # (seeds, iterations)
    steps = np.arange(1, shortest + 1)
    for one in values:
        axis.plot(steps, one, color=colour, linewidth=0.7, alpha=0.5)
    axis.plot(steps, values.mean(0), color=colour, linewidth=2.5, label=label or None)
    axis.grid(alpha=0.2)


def _seeds(entries: Sequence[Json]) -> str:
    return f"{len(entries)} seed" + ("s (thin) and their mean" if len(entries) > 1 else "")


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
