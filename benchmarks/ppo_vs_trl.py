"""PPO iterations side by side with TRL's PPOTrainer: seconds by phase, tokens/s, peak memory.

``make bench-ppo`` (or ``python benchmarks/ppo_vs_trl.py --repeats 3``) runs both in turn, each in a
fresh process, on the embedded model: 8 prompts of 17 tokens, 32 response tokens, 4 epochs over one
minibatch, LoRA of rank 16 on all linear layers, bfloat16, Adam, no dropout, no gradient
checkpointing.

What is equal: the base's weights, the prompts, the lengths, the epochs, the batch and micro-batch,
the LoRA shape and its start (B zero, A uniform), the learning rates, the number of threads,
denormals flushed to zero. No token ends a reply, in either: TRL gets ``stop_token=None``, we an
empty set of end tokens; an end token that is drawn is one token of the reply. Both score with a
reward model on the base's weights and both train a critic on them.

What each does its own way: TRL holds policy, value model and reward model as three full models and
trains the value model in full; here reward model and critic are adapters with heads on the policy's
base. TRL takes log-probabilities from logits of all positions, we project the response positions in
blocks of the vocabulary.

``speed_ratio`` is TRL's median seconds per iteration over ours, ``memory_ratio`` our peak of
resident memory, loading included, over TRL's; both are medians over the repeats, with least and
most. ``processor seconds`` add up all cores: on a machine that does other things they tell more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ppo_workload import PHASES, Workload

GIB = 1 << 30
SCRIPTS = {"ours": "ppo_ours.py", "trl": "ppo_trl.py"}


def run_side(side: str, workload: Workload, options: dict[str, Any]) -> dict[str, Any]:
    """One fresh process; what it measured, and the load of the machine before it."""
    threads = str(workload.threads)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    script = Path(__file__).resolve().parent / SCRIPTS[side]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        job.write_text(json.dumps({"workload": asdict(workload), "options": options}))
        done = subprocess.run(
            [sys.executable, str(script), str(job), str(result)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{side} failed with exit code {done.returncode}:\n{done.stderr}")
        return {**json.loads(result.read_text()), "load_before": load}


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


def ratios(sides: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """TRL's seconds over ours and our peak over TRL's; the spread is over pairs of repeats."""

    def seconds(run: dict[str, Any]) -> float:
        return statistics.median(iteration["total"] for iteration in run["iterations"])

    pairs = list(zip(sides["ours"], sides["trl"], strict=True))
    speed = [seconds(theirs) / seconds(ours) for ours, theirs in pairs]
    memory = [ours["peak_rss"] / theirs["peak_rss"] for ours, theirs in pairs]
    return {
        "speed_ratio": statistics.median(speed),
        "speed_ratio_range": [min(speed), max(speed)],
        "memory_ratio": statistics.median(memory),
        "memory_ratio_range": [min(memory), max(memory)],
    }


def print_table(report: dict[str, Any]) -> None:
    sides = [side for side in SCRIPTS if side in report]
    print(f"\n{'median (least to most)':28}" + "".join(f"{side:>28}" for side in sides))
    for key in report[sides[0]]["summary"]:
        cells = []
        for side in sides:
            value = report[side]["summary"][key]
            cells.append(f"{value['median']:.2f} ({value['least']:.2f} to {value['most']:.2f})")
        print(f"{key.replace('_', ' '):28}" + "".join(f"{cell:>28}" for cell in cells))
    if "speed_ratio" in report:
        least, most = report["speed_ratio_range"]
        print(f"\nTRL's seconds over ours: {report['speed_ratio']:.2f} ({least:.2f} to {most:.2f})")
        least, most = report["memory_ratio_range"]
        print(f"our peak over TRL's: {report['memory_ratio']:.3f} ({least:.3f} to {most:.3f})")


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


def model_folder(name: str) -> str:
    """The folder of a model by any name that ``chatrlhf serve --model`` takes.

    In a process of its own: this one stays small, and its memory is never part of a measurement.
    """
    code = (
        "import sys; from chatrlhf.models.catalog import ensure_local, find_source; "
        "print(ensure_local(find_source(sys.argv[1]), lambda text, fraction: None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="catalog name or model folder")
    for option in fields(Workload):
        if option.name == "whole_critic":
            text = "train our critic's adapter in all layers, not only above the middle"
            parser.add_argument("--whole-critic", action="store_true", help=text)
        elif option.name != "folder":
            parser.add_argument(
                f"--{option.name.replace('_', '-')}",
                type=type(option.default),
                default=option.default,
                help=f"default {option.default}",
            )
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes of each side")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--ours-only", action="store_true")
    only.add_argument("--trl-only", action="store_true")
    parser.add_argument("--profile", action="store_true", help="profile one more of our iterations")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    sides = ["ours"] if arguments.ours_only else ["trl"] if arguments.trl_only else list(SCRIPTS)
    values = {f.name: getattr(arguments, f.name) for f in fields(Workload) if f.name != "folder"}
    workload = Workload(folder=model_folder(arguments.model), **values)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for repeat in range(arguments.repeats):
        for side in sides:
            run = run_side(side, workload, {"profile": arguments.profile and side == "ours"})
            runs[side].append(run)
            seconds = ", ".join(f"{iteration['total']:.2f}" for iteration in run["iterations"])
            print(f"{side} {repeat + 1}/{arguments.repeats}: {seconds} s an iteration", flush=True)
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "workload": {**asdict(workload), "folder": Path(workload.folder).name},
        **{side: {"summary": summary(runs[side], workload), "runs": runs[side]} for side in sides},
    }
    if len(sides) == 2:
        report |= ratios(runs)
    print_table(report)
    for side in sides:
        for phase, table in runs[side][-1]["profile"].items():
            print(f"\n{phase}\n{table}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
