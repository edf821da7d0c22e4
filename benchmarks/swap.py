"""Versions swapped into an engine that people chat with: what is lost, changed or held up.

``make bench-swap`` loads the embedded model in a fresh process and lets three people chat without a
break, four replies of up to 64 tokens each turn, while twelve versions are published one after
another: read from their folders and verified, copied beside the versions that serve, tried, made
live. More versions than memory has slots, so old ones are dropped on the way. At once after each, a
request of its own asks the new version. The versions are the starter adapter with noise on it, so
that each gives other replies.

- ``dropped``: requests that failed, or whose replies were cut short.
- ``altered``: replies that streamed while a version was published, and that have other tokens when
  their request is run again, by the version that it had, alone and without a swap. As a control,
  one such request is run by another version too: its replies should be others.
- ``longest_pause_ms``: the longest gap between texts of a running stream while a version was
  published, less the usual step (the median gap of a reply where nothing was published and no
  prompt was run). ``longest_pause_with_prompts_ms`` has gaps too in which another request's prompt
  was run; ``longest_pause_without_swap_ms`` those where there was neither, for comparison.
- ``publish_to_first_token_ms``: from the version's files to the first text of its first reply, the
  prompt included; the median. That a server looks for new versions once a second comes on top.
- ``memory_per_version_mb``: tensors of an adapter; and how resident memory moved over the swaps.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fresh_process import MeasurementFailed, all_cores, in_fresh_process
from ppo_vs_trl import model_folder
from side_by_side import machine
from swap_workload import SwapWorkload

_MIB = 1 << 20
_HELP = {
    "conversations": "people who chat at once",
    "replies": "of each turn",
    "tokens": "of a reply, at most",
    "swaps": "versions published one after another",
    "pause_seconds": "between a version's first reply and the next version",
    "resident_versions": "slots in memory",
    "deviation": "of the noise on the starter adapter",
    "threads": "default: all cores",
    "quantization": "of the engine's model",
}


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000.0 * seconds


def report_of(workload: SwapWorkload, found: Mapping[str, Any]) -> dict[str, Any]:
    """Everything measured, and what follows from it."""
    pauses, firsts = found["pauses_seconds"], found["publish_to_first_token_seconds"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "workload": {**asdict(workload), "folder": Path(workload.folder).name},
        "longest_pause_ms": milliseconds(pauses["while_publishing"]),
        "longest_pause_with_prompts_ms": milliseconds(pauses["while_publishing_or_prompting"]),
        "longest_pause_without_swap_ms": milliseconds(pauses["otherwise"]),
        "usual_step_ms": milliseconds(pauses["usual_step"]),
        "publish_to_first_token_ms": milliseconds(statistics.median(firsts)),
        "publish_to_first_token_range_ms": [1000.0 * min(firsts), 1000.0 * max(firsts)],
        "publish_ms": milliseconds(statistics.median(found["publish_seconds"])),
        "memory_per_version_mb": found["bytes_per_version"] / _MIB,
        "rss_growth_after_filling_mb": growth(found["rss"], workload.resident_versions),
        **found,
    }


def growth(rss: Sequence[int], slots: int) -> float | None:
    """MiB that resident memory grew by after all slots had been filled; None if they never were.

    ``rss`` is in bytes: with the first version, then after each swap.
    """
    return None if len(rss) <= slots else (rss[-1] - rss[slots - 1]) / _MIB


def show(report: Mapping[str, Any]) -> None:
    """Print a line for each thing measured."""
    least, most = report["publish_to_first_token_range_ms"]
    grown = report["rss_growth_after_filling_mb"]
    moved = (
        "" if grown is None else f"; resident memory moved by {grown:+.1f} MiB with all slots full"
    )
    lines = {
        "swaps": f"{report['swaps']}, over {report['requests']} requests",
        "dropped": f"{report['dropped']} requests",
        "altered": f"{report['altered']} of {report['replies_in_flight']} replies in flight; "
        f"by another version {report['altered_in_control']} of {report['replies_of_control']}",
        "longest pause": f"{_ms(report['longest_pause_ms'])} beyond the usual step of "
        f"{_ms(report['usual_step_ms'])}; with prompts of others "
        f"{_ms(report['longest_pause_with_prompts_ms'])}, without a swap "
        f"{_ms(report['longest_pause_without_swap_ms'])}",
        "publish to first token": f"{_ms(report['publish_to_first_token_ms'])} "
        f"({least:.0f}-{most:.0f}), of it publishing {_ms(report['publish_ms'])}",
        "memory of a version": f"{report['memory_per_version_mb']:.1f} MiB" + moved,
    }
    for name, text in lines.items():
        print(f"{name:24}{text}")
    for reason in report["failures"]:
        print(f"a request failed: {reason}")


def _ms(value: float | None) -> str:
    return "no gap" if value is None else f"{value:.0f} ms"


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="catalog name or model folder")
    for option in fields(SwapWorkload):
        if option.name != "folder":
            default = all_cores() if option.name == "threads" else option.default
            parser.add_argument(
                f"--{option.name.replace('_', '-')}",
                type=type(option.default),
                default=default,
                help=f"{_HELP[option.name]} ({default})",
            )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    arguments = parser.parse_args(given)
    for name in ("conversations", "replies", "tokens", "swaps", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if arguments.pause_seconds < 0:
        parser.error("--pause-seconds must be 0 or more")
    return arguments


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse(given)
    names = [one.name for one in fields(SwapWorkload) if one.name != "folder"]
    values = {name: getattr(arguments, name) for name in names}
    workload = SwapWorkload(folder=model_folder(arguments.model), **values)
    try:
        found = in_fresh_process(
            "swap_run.py",
            asdict(workload),
            threads=workload.threads,
            # As ``chatrlhf serve`` has it.
            variables={"OMP_WAIT_POLICY": "PASSIVE"},
        )
    except MeasurementFailed as error:
        raise SystemExit(f"the measurement failed: {error}") from error
    report = report_of(workload, found)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


if __name__ == "__main__":
    main()
