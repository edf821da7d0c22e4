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
import subprocess
import sys
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fresh_process import MeasurementFailed, in_fresh_process
from ppo_workload import Workload
from side_by_side import SIDES, machine, ratios, summary

# Fields of the workload that are no options here: gpu.py measures with them.
FIXED = ("folder", "device", "quantization", "optimizer", "gradient_checkpointing")


def run_side(side: str, workload: Workload, options: dict[str, Any]) -> dict[str, Any]:
    """One fresh process; what it measured, and the load of the machine before it."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    job = {"workload": asdict(workload), "options": options}
    try:
        found = in_fresh_process(SIDES[side], job, threads=workload.threads)
    except MeasurementFailed as error:
        raise SystemExit(f"{side} failed: {error}") from error
    return {**found, "load_before": load}


def print_table(report: dict[str, Any]) -> None:
    sides = [side for side in SIDES if side in report]
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
        if option.name in FIXED:
            continue
        if option.name == "whole_critic":
            text = "train our critic's adapter in all layers, not only above the middle"
            parser.add_argument("--whole-critic", action="store_true", help=text)
        else:
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
    sides = ["ours"] if arguments.ours_only else ["trl"] if arguments.trl_only else list(SIDES)
    values = {f.name: getattr(arguments, f.name) for f in fields(Workload) if f.name not in FIXED}
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
