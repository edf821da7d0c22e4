"""What the commands share: the terminal, common options, settings and the database."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from chatrlhf.settings import Settings
    from storage.database import Database

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Data folder (default: CHATRLHF_DATA, else the platform's user data folder).",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="Base model: a name of `chatrlhf models`, a hub id, a folder or a .gguf file.",
        show_default=False,
    ),
]

console = Console()


def say(text: str) -> None:
    """Print a sentence; square brackets in it are no markup."""
    console.print(escape(text), highlight=False)


def print_json(value: Any) -> None:
    """Print JSON on standard output, nothing else with it."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_table(headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a plain table; ``None`` becomes a dash."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else escape(str(cell)) for cell in row))
    console.print(table)


def settings_of(data: Path | None, **overrides: dict[str, Any]) -> Settings:
    """The settings of a data folder, with the options of the command line on top."""
    from chatrlhf.settings import load_settings

    return load_settings(data, overrides)


def open_rows(settings: Settings) -> Database:
    """The database of a data folder, made where it is missing."""
    from storage.database import open_database

    return open_database(settings.database_path)
