"""K replies to one prompt: our engine, transformers' ``generate``, llama.cpp. Side by side.

``make bench-generate`` runs each side in fresh processes, in turn, on the embedded Gemma 3 270M:
1, 4 and 8 replies of 64 new tokens. Ours is the engine as the chat uses it, with a LoRA version
live; ``generate`` has bf16 weights and ``num_return_sequences``; llama.cpp decodes K sequences in
one batch from the Q4_K_M file, with its own samplers. Those sort the whole vocabulary for top-p, so
it has two more lines: with top-k 40 before that, its default, and with tokens that are given
instead of drawn, which is what its ``llama-batched-bench`` measures and more than anybody gets.

What is equal: the prompt's tokens (each request has one of its own, so that no side has it cached),
temperature and top-p over the whole vocabulary, no top-k (but in that line), no token that ends a
reply, the number of threads. What each does its own way: the form of the weights (ours as the chat
loads them, bf16, Q4_K_M), caches, samplers. Waiting threads sleep in our processes, as ``chatrlhf
serve`` has them; ``generate`` and llama.cpp keep the spinning that is their default, unless
``--peers-sleep``. Where llama.cpp crashes with weights laid out for the processor, plain ones are
measured, and the output says so.

tokens/s are those of all K replies together, over the time from the request to its last token, the
prompt included. Memory is the peak of resident memory of a process, loading included.

Perplexity is that of the model without an adapter on answers of the shipped demonstrations: the
engine's by single steps of what decodes its replies, bf16's by forward passes of transformers.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fresh_process import MeasurementFailed, all_cores, in_fresh_process
from generation_results import SideRuns, ratios, summary, table_of
from generation_workload import GenerationWorkload, prompts_needed
from rich.console import Console
from side_by_side import machine

_WAIT = "OMP_WAIT_POLICY"
_WIDTH = 120
_MOST_TEXT_TOKENS = 512  # a batch of llama.cpp
_CRASHES = ("SIGSEGV", "SIGILL", "SIGBUS")
NO_LLAMA = (
    "llama.cpp is left out, as llama-cpp-python is not installed. Run: pip install "
    "'chatrlhf[bench]' (it compiles llama.cpp, and needs a C++ compiler)"
)
NO_GGUF = "llama.cpp is left out, as this model has no GGUF file. Name one with --gguf FILE"

PLAIN = (
    "llama.cpp crashed ({reason}) with weights laid out for this processor; it was measured with "
    "plain ones, which may be slower. Build it with CXXFLAGS='-fno-dse -fno-tree-dse' (make does)"
)


@dataclass(frozen=True)
class SideSpec:
    """The script of a side, its options, and whether it is one of ours."""

    script: str
    options: Mapping[str, Any]
    ours: bool = False


SIDES = {
    "engine": SideSpec("generation_engine.py", {}, ours=True),
    "generate": SideSpec("generation_transformers.py", {}),
    "llama": SideSpec("generation_llama.py", {"drawn": True, "top_k": 0}),
    "llama-top-k": SideSpec("generation_llama.py", {"drawn": True, "top_k": 40}),
    "llama-bare": SideSpec("generation_llama.py", {"drawn": False, "top_k": 0}),
}
# Whose perplexity is taken.
_JUDGED = ("engine", "generate", "llama")


def run_side(
    name: str,
    workload: GenerationWorkload,
    repeat: int,
    *,
    peers_sleep: bool,
    plain: bool = False,
) -> dict[str, Any]:
    """One fresh process: what it measured, and the load of the machine before it.

    ``plain`` forbids llama.cpp to lay weights out for the processor.

    Raises:
        MeasurementFailed: it gave no result.
    """
    side = SIDES[name]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    sleeps = side.ours or peers_sleep
    options = {**side.options, "perplexity": repeat == 0 and name in _JUDGED}
    if plain:
        options["repacked"] = False
    found = in_fresh_process(
        side.script,
        {"workload": asdict(workload), "options": options},
        threads=workload.threads,
        variables={_WAIT: "PASSIVE" if sleeps else None},
    )
    return {**found, "load_before": load}


def run_llama(
    name: str, workload: GenerationWorkload, repeat: int, *, peers_sleep: bool
) -> dict[str, Any]:
    """A process of llama.cpp; one that crashes is tried again with plain weights.

    Its code for AMX crashes where a compiler drops the tile configuration that it builds.

    Raises:
        MeasurementFailed: it gave no result either way.
    """
    try:
        return run_side(name, workload, repeat, peers_sleep=peers_sleep)
    except MeasurementFailed as error:
        if not error.reason.endswith(_CRASHES):
            raise
        found = run_side(name, workload, repeat, peers_sleep=peers_sleep, plain=True)
        return {**found, "plain_because": error.reason}


def chosen_sides(wanted: Sequence[str], gguf: str | None) -> tuple[list[str], str]:
    """The sides that can run here, and why others cannot."""
    left_out = ""
    if any(name.startswith("llama") for name in wanted):
        left_out = NO_LLAMA if find_spec("llama_cpp") is None else "" if gguf else NO_GGUF
    return [name for name in wanted if not (left_out and name.startswith("llama"))], left_out


def measure(
    workload: GenerationWorkload, sides: Sequence[str], processes: int, *, peers_sleep: bool
) -> Iterator[tuple[dict[str, SideRuns], dict[str, str]]]:
    """The runs so far, and why sides failed, after each process; one that fails is left out."""
    runs: dict[str, SideRuns] = {name: [] for name in sides}
    failed: dict[str, str] = {}
    for repeat in range(processes):
        for name in sides:
            if name in failed:
                continue
            try:
                run = run_llama if name.startswith("llama") else run_side
                runs[name].append(run(name, workload, repeat, peers_sleep=peers_sleep))
            except MeasurementFailed as error:
                failed[name] = error.reason
                runs.pop(name)
            print(f"{name} {repeat + 1}/{processes}: {failed.get(name, 'measured')}", flush=True)
            yield runs, failed


def report_of(
    workload: GenerationWorkload, runs: Mapping[str, SideRuns], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Everything measured, and what follows from it."""
    settings = asdict(workload)
    for tokens in ("questions", "prompts", "texts"):
        del settings[tokens]
    whole = {name: one for name, one in runs.items() if one}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "workload": {
            **settings,
            "folder": Path(workload.folder).name,
            "gguf": workload.gguf and Path(workload.gguf).name,
            "prompt_tokens": len(workload.prompts[0]),
            "perplexity_tokens": sum(len(row) - 1 for row in workload.texts),
        },
        "left_out": dict(left_out),
        **ratios(whole),
        "summary": summary(whole),
        "runs": whole,
    }


def show(report: Mapping[str, Any]) -> None:
    """Print the tables and the ratios."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table_of(report))
    for name, value in report.items():
        if name.startswith(("ratio_", "perplexity_")) and not name.endswith("_range"):
            least, most = report.get(f"{name}_range", (value, value))
            spread = "" if least == most else f" ({least:.3f} to {most:.3f})"
            console.print(f"{name}: {value:.3f}{spread}", markup=False, highlight=False)
    crashes = [run.get("plain_because") for runs in report["runs"].values() for run in runs]
    plain = [PLAIN.format(reason=reason) for reason in crashes if reason]
    for line in dict.fromkeys([*report["left_out"].values(), *plain]):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="catalog name, folder or GGUF file")
    parser.add_argument("--gguf", help="the same model for llama.cpp; known for embedded")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--replies", nargs="+", type=int, default=[1, 4, 8], help="values of K")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of a reply")
    parser.add_argument("--processes", type=int, default=3, help="of each side, in turn")
    parser.add_argument("--repeats", type=int, default=3, help="of each K in a process")
    parser.add_argument("--warmup", type=int, default=1, help="requests of each K before these")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=0.95, help="default: that of the chat")
    parser.add_argument("--threads", type=int, default=all_cores(), help="default: all cores")
    parser.add_argument("--quantization", default="auto", help="of the engine's model")
    parser.add_argument("--text-rows", type=int, default=8, help="rows of the perplexity's text")
    parser.add_argument("--text-tokens", type=int, default=256, help="tokens of a row")
    parser.add_argument("--peers-sleep", action="store_true", help="waiting threads sleep in all")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    found = parser.parse_args(arguments)
    for option in ("tokens", "processes", "repeats", "threads", "text_rows"):
        if getattr(found, option) < 1:
            parser.error(f"--{option.replace('_', '-')} must be 1 or more")
    if not 3 <= found.text_tokens <= _MOST_TEXT_TOKENS:
        parser.error(f"--text-tokens must be 3 to {_MOST_TEXT_TOKENS}")
    if min(found.replies) < 1 or found.warmup < 0:
        parser.error("--replies must be 1 or more, and --warmup 0 or more")
    return found


def prepared(arguments: argparse.Namespace, scratch: Path) -> GenerationWorkload:
    """The workload, once the model is on this machine.

    Raises:
        SystemExit: it cannot be had.
    """
    job = {
        "model": arguments.model,
        "gguf": arguments.gguf,
        "scratch": str(scratch),
        "requests": prompts_needed(arguments.replies, arguments.warmup, arguments.repeats),
        "text_rows": arguments.text_rows,
        "text_tokens": arguments.text_tokens,
    }
    try:
        found = in_fresh_process("generation_prepare.py", job, threads=arguments.threads)
    except MeasurementFailed as error:
        raise SystemExit(f"{arguments.model} cannot be measured: {error.reason}") from error
    names = ("replies", "tokens", "repeats", "warmup", "temperature", "top_p", "threads")
    return GenerationWorkload(
        **found,
        quantization=arguments.quantization,
        **{name: getattr(arguments, name) for name in names},
    )


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse(given)
    with TemporaryDirectory() as scratch:
        workload = prepared(arguments, Path(scratch))
        sides, reason = chosen_sides(arguments.sides, workload.gguf)
        left_out = {name: reason for name in arguments.sides if name not in sides}
        report = report_of(workload, {}, left_out)
        for runs, failed in measure(
            workload, sides, arguments.processes, peers_sleep=arguments.peers_sleep
        ):
            whys = {name: f"{name} failed: {why}" for name, why in failed.items()}
            report = report_of(workload, runs, {**left_out, **whys})
            if arguments.json:
                text = json.dumps(report, indent=2)
                arguments.json.write_text(text + "\n", encoding="utf-8")
    show(report)
    if "engine" in arguments.sides and "engine" not in report["summary"]:
        raise SystemExit("the engine gave no result")


if __name__ == "__main__":
    main()
