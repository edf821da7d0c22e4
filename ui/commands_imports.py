"""``chatrlhf imports``: what was imported, and how to take it back."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ui.terminal import Data, Json, console, open_rows, print_json, print_table, say, settings_of

app = typer.Typer(help="Imports of ratings: list them, take one back.")


@app.callback(invoke_without_command=True)
def imports(context: typer.Context, *, json_output: Json = False, data: Data = None) -> None:
    """Imports of ratings. Alone: list."""
    if context.invoked_subcommand is None:
        list_all(json_output=json_output, data=data)


@app.command("list")
def list_all(*, json_output: Json = False, data: Data = None) -> None:
    """List all imports, the newest first."""
    from storage.imports import list_imports

    found = list_imports(open_rows(settings_of(data)))
    if json_output:
        print_json([dataclasses.asdict(one) for one in found])
        return
    if not found:
        say("Nothing was imported yet: chatrlhf import FILE")
        return
    print_table(
        ["id", "file", "by", "state", "at", "new"],
        [
            [one.id, one.name or None, one.person, one.state, one.created_at, _new(one.report)]
            for one in found
        ],
    )


@app.command()
def undo(
    import_id: Annotated[int, typer.Argument(help="The id of an import, as the list tells it.")],
    *,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Erase all that an import brought, and what people made of it since.

    Versions that were trained on it are marked.
    """
    from rich.progress import Progress

    from storage.imports import get_import, undo_import
    from storage.people import ensure_local_person

    db = open_rows(settings_of(data))
    me = ensure_local_person(db)
    with Progress(console=console, transient=True, disable=json_output) as bar:
        task = bar.add_task(f"import {import_id}", total=1.0)
        for fraction in undo_import(db, import_id, by=me.id):
            bar.update(task, completed=fraction)
    one = get_import(db, import_id)
    if json_output:
        print_json(dataclasses.asdict(one))
    else:
        say(f"Import {import_id} ({one.name or 'no name'}) is taken back.")


def _new(report: dict[str, dict[str, int]]) -> str:
    added = report.get("added", {})
    return ", ".join(f"{count:,} {kind}" for kind, count in added.items() if count) or "nothing"
