"""The whole loop, as a person would use it: chat, rank, train, swap, measure.

``make bench-loop`` (or ``python benchmarks/loop.py --rater shorter --seeds 0 1``) starts a server
with a fresh data folder for each rater and seed and runs ``chatrlhf simulate`` against it. Nothing
is averaged away: every seed is a line, whether it won or not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from own_server import own_server, simulate
from rich.console import Console

from chatrlhf.loop.simulate_report import comparison_table


def run(rater: str, seed: int, rankings: int, folder: Path) -> dict[str, Any]:
    name = f"{rater.replace(':', '-')}-{seed}"
    report = folder / f"{name}.json"
    with own_server(folder / name, {"CHATRLHF_ROUND_SEED": str(seed)}) as url:
        started = time.perf_counter()
        simulate(
            *(url, "--rater", rater, "--rankings", str(rankings)),
            *("--seed", str(seed), "--json", str(report)),
        )
        seconds = time.perf_counter() - started
        result: dict[str, Any] = json.loads(report.read_text())
        result["seconds"] = seconds
        result["rounds"] = httpx.get(f"{url}/api/rounds").json()
        return result


def print_tables(results: list[dict[str, Any]]) -> None:
    console = Console()
    for result in results:
        console.print(f"seed {result['seed']}, {result['seconds'] / 60:.1f} minutes")
        console.print(comparison_table(result["versions"], result["rater"]))
        for outcome in result["rounds"]:
            console.print(f"  round {outcome['id']}: {outcome['message']}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rater", nargs="+", default=["shorter", "positive"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--rankings", type=int, default=48)
    parser.add_argument("--json", type=Path, help="write all reports to this file")
    parser.add_argument("--keep", type=Path, help="put the data folders here and keep them")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        where = arguments.keep or Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        for rater in arguments.rater:
            for seed in arguments.seeds:
                results.append(run(rater, seed, arguments.rankings, where))
                if arguments.json:
                    arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    print_tables(results)


if __name__ == "__main__":
    main()
