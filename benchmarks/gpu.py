"""One script, one table: PPO iterations and generation at the shapes of 0.5B, 1.5B and 8B models.

``make bench-gpu`` writes models of these shapes with random weights (``random_model.py``; the
largest takes 16 GB of disk until it is deleted) and runs each measurement of ``gpu_tasks.py`` in a
process of its own, so that peaks of memory are their own. What does not fit is a line that says
so. It runs without a GPU too, where only small shapes make sense (``--shapes tiny``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from random_model import SHAPES, write_random_model
from rich.console import Console
from rich.table import Table

TASKS = ("ppo", "engine", "generate")
GIB = 1 << 30


def run(task: str, model: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One measurement; ``error`` holds the last line of a process that failed."""
    command = [sys.executable, str(Path(__file__).with_name("gpu_tasks.py")), task, str(model)]
    for name in ("quantization", "batch", "micro_batch", "tokens", "repeats"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip() or "no message").splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def rows_of(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Lines of the table: what, seconds or first text, tokens a second, peak."""
    if "error" in result:
        return [("failed", "", "", result["error"][:60])]
    peak = f"{result['peak_bytes'] / GIB:.2f} GiB"
    if "seconds" in result:
        speed = f"{result['response_tokens_per_second']:.0f}"
        return [("iteration", spread(result["seconds"], 2), speed, peak)]
    rows = []
    for replies in ("k1", "k4", "k8"):
        one = result[replies]
        first = "" if one["first_seconds"] is None else f"{one['first_seconds']:.3f}"
        rows.append((f"K = {replies[1:]}", first, spread(one["tokens_per_second"], 1), peak))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["0.5b", "1.5b", "8b"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--quantization", default="auto", help="nf4, int8, bf16, fp32 or auto")
    parser.add_argument("--batch", type=int, default=16, help="replies of a PPO iteration")
    parser.add_argument("--micro-batch", type=int, default=16, help="rows of one forward pass")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of a reply, at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    table = Table(title="median (range)")
    for column in ("shape", "task", "what", "seconds / first text", "tokens/s", "peak"):
        table.add_column(column)
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory() as folder:
            model = write_random_model(Path(folder) / shape, shape)
            for task in arguments.tasks:
                result = results.setdefault(shape, {})[task] = run(task, model, arguments)
                for row in rows_of(result):
                    table.add_row(shape, task, *row)
                if arguments.json:
                    arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    devices = {one.get("device", "") for tasks in results.values() for one in tasks.values()}
    Console().print(table, f"device: {', '.join(sorted(devices - {''}))}")


if __name__ == "__main__":
    main()
