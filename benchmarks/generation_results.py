"""The measurements of ``generation.py`` as medians, ratios and a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from side_by_side import GIB, spread

SideRuns = list[dict[str, Any]]
TITLES = {
    "engine": "engine, LoRA version live",
    "generate": "generate, bf16",
    "llama": "llama.cpp",
    "llama-top-k": "llama.cpp, top-k 40",
    "llama-bare": "llama.cpp, tokens given",
}
# Ours over theirs, for every K: name of the ratio, ours, theirs.
_PAIRS = (
    ("ratio_llama", "engine", "llama"),
    ("ratio_generate", "engine", "generate"),
    ("ratio_llama_top_k", "engine", "llama-top-k"),
    ("ratio_llama_bare", "engine", "llama-bare"),
)


def replies_of(run: Mapping[str, Any]) -> list[str]:
    """``k1``, ``k4``, ...: the numbers of replies that a process measured."""
    return [name for name in run if name[0] == "k" and name[1:].isdigit()]


def speed(timing: Mapping[str, float]) -> float:
    """Tokens a second, the prompt's time included."""
    return timing["tokens"] / timing["seconds"]


def decode_speed(timing: Mapping[str, float], replies: int) -> float | None:
    """Tokens a second after the first of each reply; None for replies of one token."""
    seconds, tokens = timing["seconds"] - timing["first_seconds"], timing["tokens"] - replies
    return tokens / seconds if tokens and seconds > 0 else None


def summary(runs: Mapping[str, SideRuns]) -> dict[str, dict[str, Any]]:
    """Medians over all requests of all processes, with least and most."""
    return {name: _summary_of(one) for name, one in runs.items()}


def _summary_of(runs: SideRuns) -> dict[str, Any]:
    found: dict[str, Any] = {
        "peak_rss_gib": spread([run["peak_rss"] / GIB for run in runs]),
        "rss_after_loading_gib": spread([run["rss_after_loading"] / GIB for run in runs]),
        "load_seconds": spread([run["load_seconds"] for run in runs]),
        "perplexity": next((run["perplexity"] for run in runs if run["perplexity"]), None),
    }
    for key in replies_of(runs[0]):
        timings = [timing for run in runs for timing in run[key]]
        decoding = [decode_speed(timing, int(key[1:])) for timing in timings]
        found[key] = {
            "tokens_per_second": spread([speed(timing) for timing in timings]),
            "first_seconds": spread([timing["first_seconds"] for timing in timings]),
            "decode_tokens_per_second": spread([one for one in decoding if one is not None])
            if None not in decoding
            else None,
        }
    return found


def ratios(runs: Mapping[str, SideRuns]) -> dict[str, Any]:
    """Our tokens a second over theirs by K, and the engine's perplexity over that of bf16.

    A ratio is the median over pairs of processes that ran after each other; ``_range`` is the
    least and the most of the pairs.
    """
    found: dict[str, Any] = {}
    for name, ours, theirs in _PAIRS:
        pairs = list(zip(runs.get(ours, []), runs.get(theirs, []), strict=False))
        for key in replies_of(pairs[0][0]) if pairs else []:
            values = [_median_speed(a, key) / _median_speed(b, key) for a, b in pairs]
            found[f"{name}_{key}"] = statistics.median(values)
            found[f"{name}_{key}_range"] = [min(values), max(values)]
    perplexities = {name: one["perplexity"] for name, one in summary(runs).items()}
    bf16 = perplexities.get("generate")
    for name, side in (("perplexity_ratio", "engine"), ("perplexity_ratio_llama", "llama")):
        if bf16 and perplexities.get(side):
            found[name] = perplexities[side] / bf16
    return found


def _median_speed(run: Mapping[str, Any], key: str) -> float:
    return statistics.median(speed(timing) for timing in run[key])


def table_of(report: Mapping[str, Any]) -> Table:
    """A line for each side and K."""
    workload = report["workload"]
    table = Table(
        title=f"{workload['tokens']} new tokens after {workload['prompt_tokens']}, "
        f"temperature {workload['temperature']:g}, top-p {workload['top_p']:g}, "
        f"{workload['threads']} threads: medians (least-most)"
    )
    for column in ("replies", "", "tokens/s", "after the first", "first token, ms", "peak GiB"):
        table.add_column(column, no_wrap=True)
    found = report["summary"]
    for key in replies_of(next(iter(found.values()), {})):
        for name, one in found.items():
            numbers = one[key]
            decoding = numbers["decode_tokens_per_second"]
            table.add_row(
                key[1:],
                TITLES[name],
                _in_words(numbers["tokens_per_second"], 1),
                f"{decoding['median']:.1f}" if decoding else "",
                _in_words(numbers["first_seconds"], 0, 1000.0),
                f"{one['peak_rss_gib']['median']:.2f}",
            )
        table.add_section()
    return table


def _in_words(one: Mapping[str, float], digits: int, unit: float = 1.0) -> str:
    median, least, most = (one[name] * unit for name in ("median", "least", "most"))
    return f"{median:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"
