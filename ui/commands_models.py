"""``chatrlhf models``: the catalog of base models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ui.terminal import Json, console, print_json, print_table, say

app = typer.Typer(help="Base models: list them, or fetch one ahead of time.")


@app.callback(invoke_without_command=True)
def models(context: typer.Context, *, json_output: Json = False) -> None:
    """List the catalog: name, size, licence, memory, where it comes from."""
    if context.invoked_subcommand is not None:
        return
    from chatrlhf.models.catalog import list_models

    entries = list_models()
    if json_output:
        print_json([dataclasses.asdict(entry) for entry in entries])
        return
    print_table(
        ["name", "parameters", "memory", "download", "licence", "state"],
        [
            [
                entry.name,
                _short(entry.parameters),
                _memory(entry.memory_bytes),
                f"{_short(entry.download_bytes)}B" if entry.download_bytes else "none",
                entry.licence + ("*" if entry.gated else ""),
                entry.state,
            ]
            for entry in entries
        ],
    )
    say(
        "Memory is for the weights, from nf4 to bf16; * accept the licence on the hub first; "
        "--json tells the hub ids.\nA hub id, a folder or a .gguf file works too."
    )


@app.command()
def get(
    name: Annotated[
        str, typer.Argument(help="A name of the catalog, a hub id, a folder or a .gguf file.")
    ],
) -> None:
    """Fetch and convert a model now rather than at the first start."""
    from chatrlhf.models.catalog import ensure_local, find_source

    source = find_source(name)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=1.0)

        def show(stage: str, fraction: float) -> None:
            progress.update(task, description=f"{name}: {stage}", completed=fraction)

        folder = ensure_local(source, show)
    say(f"{name} is ready in {folder}")


def _short(number: float) -> str:
    """Three digits and a unit: 268M, 1.24G, 32.8k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # which would round up to 1000
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _memory(by_quantization: Mapping[str, int]) -> str:
    low, high = by_quantization["nf4"], by_quantization["bf16"]
    return f"{_short(low)}B to {_short(high)}B"
