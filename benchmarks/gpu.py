"""One table: PPO beside TRL's, and generation, at the shapes of 0.5B, 1.5B and 8B models.

``make bench-gpu`` writes models of these shapes with random weights (``random_model.py``; the
largest takes 16 GB of disk until it is deleted) and takes each measurement of ``CELLS`` in a fresh
process, so that peaks of memory are its own. What does not fit, or fails otherwise, is a line that
says so. It runs without a GPU too, where only small shapes make sense (``--shapes tiny``).

PPO is the workload of ``ppo_vs_trl.py`` on another device: the same prompts, lengths, epochs, batch
and LoRA shape on both sides, one minibatch, no token ends a reply. TRL's three models are in
bfloat16; ours is measured so too, and in nf4. Gradient checkpointing and 8-bit moments are off but
in the lines that name them. Where our side runs out of memory it goes on with half as many rows at
once, and the line says with how many; PPOTrainer ends.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fresh_process import MeasurementFailed, in_fresh_process
from gpu_table import table_of
from model_shapes import SHAPES
from ppo_workload import Workload
from rich.console import Console
from side_by_side import SIDES, machine, ratios, summary

Results = dict[str, dict[str, dict[str, Any]]]
_WIDTH = 170
_KEPT_MESSAGE = 4000


@dataclass(frozen=True)
class Cell:
    """A measurement: the script that takes it, and what differs from the workload of all."""

    script: str
    changes: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ppo(self) -> bool:
        """Whether it has PPO iterations; else replies."""
        return self.script in SIDES.values()


def _ours(quantization: str, **changes: Any) -> Cell:
    return Cell(SIDES["ours"], {"quantization": quantization, **changes})


def _replies(task: str, quantization: str) -> Cell:
    return Cell("gpu_generation.py", {"quantization": quantization}, {"task": task})


TRL = "trl-bf16"
CELLS = {
    "ours-nf4": _ours("nf4"),
    "ours-nf4-checkpointing": _ours("nf4", gradient_checkpointing=True),
    "ours-nf4-adam8bit": _ours("nf4", optimizer="adam8bit"),
    "ours-bf16": _ours("bf16"),
    TRL: Cell(SIDES["trl"], {}),
    "engine-nf4": _replies("engine", "nf4"),
    "generate-nf4": _replies("generate", "nf4"),
    "engine-bf16": _replies("engine", "bf16"),
    "generate-bf16": _replies("generate", "bf16"),
}


def failed(failure: MeasurementFailed, before: str = "") -> dict[str, Any]:
    """What stands for a measurement that there is none of."""
    return {"error": before + failure.reason, "written": failure.written[-_KEPT_MESSAGE:]}


def take(cell: Cell, workload: Workload, timeout_seconds: float) -> dict[str, Any]:
    """One measurement, or ``error`` in a line and ``written``, the end of what it wrote."""
    changed = replace(workload, **cell.changes)
    job = {"workload": asdict(changed), "options": dict(cell.options)}
    try:
        found = in_fresh_process(
            cell.script, job, threads=workload.threads, timeout_seconds=timeout_seconds
        )
    except MeasurementFailed as failure:
        return failed(failure)
    if not cell.is_ppo:
        return found
    halved = found["micro_batch"] < workload.micro_batch
    return {**found, "summary": summary([found], changed), "halved": halved}


def measure_shape(
    shape: str, cells: Sequence[str], workload: Workload, timeout_seconds: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The cells of one shape, each as it is taken; the model is deleted at the end."""
    with TemporaryDirectory() as folder:
        # A process that has written a model on a GPU would go on holding memory there.
        job = {"folder": str(Path(folder) / shape), "shape": shape}
        try:
            model = in_fresh_process("random_model.py", job, threads=workload.threads)["folder"]
        except MeasurementFailed as failure:
            for name in cells:
                yield name, failed(failure, "the model could not be written: ")
            return
        for name in cells:
            yield name, take(CELLS[name], replace(workload, folder=model), timeout_seconds)


def compare(cells: dict[str, dict[str, Any]]) -> None:
    """Put TRL's seconds over ours, and our peak over TRL's, to each of our cells."""
    theirs = cells.get(TRL, {"error": "not measured"})
    for name, one in cells.items():
        if CELLS[name].script == SIDES["ours"] and "error" not in one and "error" not in theirs:
            one |= ratios({"ours": [one], "trl": [theirs]})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["0.5b", "1.5b", "8b"])
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--batch", type=int, default=16, help="replies of a PPO iteration")
    parser.add_argument("--micro-batch", type=int, default=16, help="rows of one forward pass")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96, help="tokens of a reply")
    parser.add_argument("--epochs", type=int, default=4, help="updates of a PPO iteration")
    parser.add_argument("--repeats", type=int, default=3, help="after one to warm up")
    parser.add_argument("--threads", type=int, default=4, help="of the processor")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of a cell, at most")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    arguments = parser.parse_args()
    arguments.micro_batch = min(arguments.micro_batch, arguments.batch)
    if arguments.batch % arguments.micro_batch:
        parser.error("--batch must be a multiple of --micro-batch, as PPOTrainer wants it")
    return arguments


def main() -> None:
    arguments = parse()
    workload = Workload(
        folder="",
        batch=arguments.batch,
        micro_batch=arguments.micro_batch,
        prompt_tokens=arguments.prompt_tokens,
        response_tokens=arguments.tokens,
        epochs=arguments.epochs,
        threads=arguments.threads,
        iterations=arguments.repeats,
        device=arguments.device,
    )
    cells, left_out = list(arguments.cells), ""
    if TRL in cells and find_spec("trl") is None:
        cells.remove(TRL)
        left_out = "TRL is not installed and left out; pip install '.[dev]' installs it"
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "workload": asdict(workload),
        "left_out": left_out,
    }
    results: Results = {}
    for shape in arguments.shapes:
        found = results[shape] = {}
        for name, one in measure_shape(shape, cells, workload, arguments.timeout):
            found[name] = one
            print(f"{shape} {name}: {one.get('error', 'measured')}", flush=True)
            compare(found)
            if arguments.json:
                text = json.dumps({**report, "results": results}, indent=2)
                arguments.json.write_text(text + "\n", encoding="utf-8")
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table_of(results))
    devices = {one.get("device", "") for found in results.values() for one in found.values()}
    console.print(f"device: {', '.join(sorted(devices - {''})) or 'none'}", left_out, sep="\n")


if __name__ == "__main__":
    main()
