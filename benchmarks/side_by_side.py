"""Our PPO beside TRL's in numbers: medians with least and most, and ratios."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path
from typing import Any

from ppo_workload import PHASES, Workload

GIB = 1 << 30
SIDES = {"ours": "ppo_ours.py", "trl": "ppo_trl.py"}


def summary(runs: list[dict[str, Any]], workload: Workload) -> dict[str, Any]:
    """Medians over all iterations of all repeats, with least and most."""
    found: dict[str, Any] = {}
    for name in (*PHASES, "total", "processor"):
        values = [iteration[name] for run in runs for iteration in run["iterations"]]
        found[f"{name}_seconds"] = spread(values)
    totals = [iteration["total"] for run in runs for iteration in run["iterations"]]
    found["response_tokens_per_second"] = spread(
        [workload.tokens_per_iteration / t for t in totals]
    )
    for name in ("rss_after_loading", "peak_rss_after_loading", "peak_rss"):
        found[f"{name}_gib"] = spread([run[name] / GIB for run in runs])
    return found


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def peak(run: dict[str, Any]) -> int:
    """Most bytes that a run held: of the GPU's memory, or resident where it used none."""
    return int(run["gpu_peak_allocated"] or run["peak_rss"])


def ratios(sides: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """TRL's seconds over ours and our peak over TRL's; the range is over pairs of repeats."""

    def seconds(run: dict[str, Any]) -> float:
        return statistics.median(iteration["total"] for iteration in run["iterations"])

    pairs = list(zip(sides["ours"], sides["trl"], strict=True))
    speed = [seconds(theirs) / seconds(ours) for ours, theirs in pairs]
    memory = [peak(ours) / peak(theirs) for ours, theirs in pairs]
    return {
        "speed_ratio": statistics.median(speed),
        "speed_ratio_range": [min(speed), max(speed)],
        "memory_ratio": statistics.median(memory),
        "memory_ratio_range": [min(memory), max(memory)],
    }


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
    }
