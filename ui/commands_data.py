"""``chatrlhf prompts import`` and ``chatrlhf export``: rows in and out as JSON Lines."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.terminal import Data, open_rows, say, settings_of

if TYPE_CHECKING:
    from storage.database import Database

prompts_app = typer.Typer(help="The pool of prompts.", no_args_is_help=True)

PromptRow = tuple[str, str, tuple[str, ...]]


@prompts_app.callback()
def prompts() -> None:
    """The pool of prompts, for queues, rollouts and simulated raters."""


@prompts_app.command("import")
def import_prompts(
    file: Annotated[
        Path,
        typer.Argument(
            help='Text, one prompt a line; or .jsonl, lines such as {"text": ..., '
            '"system_prompt": ..., "tags": [...]}.'
        ),
    ],
    data: Data = None,
) -> None:
    """Add prompts to the pool; those it has already are left out. All lines or none."""
    from storage.prompts import add_prompts

    rows = read_prompts(file)
    added = add_prompts(open_rows(settings_of(data)), rows)
    say(f"{added} of {len(rows)} prompts added.")


def export(
    output: Annotated[
        Path | None, typer.Option(help="File to write (default: standard output).")
    ] = None,
    data: Data = None,
) -> None:
    """Write rankings and demonstrations as JSON Lines, one object a line."""
    from chatrlhf.errors import BadInputError

    db = open_rows(settings_of(data))
    if output is None:
        for row in exported_rows(db):
            sys.stdout.write(row)
        return
    try:
        with output.open("w", encoding="utf-8") as file:
            count = sum(1 for row in exported_rows(db) if file.write(row))
    except OSError as error:
        raise BadInputError(f"{output} cannot be written: {error}") from error
    say(f"{count} lines written to {output}.")


def exported_rows(db: Database) -> Iterator[str]:
    """One JSON line for each active ranking, then for each demonstration."""
    from storage.demonstrations import list_demonstrations
    from storage.rankings import ranked_turns

    for ranking in ranked_turns(db):
        yield _line("ranking", ranking)
    for demonstration in list_demonstrations(db):
        yield _line("demonstration", demonstration)


def read_prompts(path: Path) -> list[PromptRow]:
    """The prompts of a file as (text, system prompt, tags).

    Raises:
        BadInputError: the file cannot be read, or a line is wrong; says which line.
    """
    from chatrlhf.errors import BadInputError

    try:
        # utf-8-sig: files from Windows begin with a byte order mark.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if path.suffix != ".jsonl":
        return [(line.strip(), "", ()) for _, line in numbered]
    rows = []
    for number, line in numbered:
        try:
            rows.append(_prompt_row(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"{path}, line {number}: {error}. Nothing was added.") from error
    return rows


def _prompt_row(value: Any) -> PromptRow:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise ValueError('a prompt is an object with a "text"')
    system_prompt, tags = value.get("system_prompt") or "", value.get("tags") or []
    if not isinstance(system_prompt, str):
        raise ValueError('"system_prompt" must be text')
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError('"tags" must be a list of texts')
    return value["text"], system_prompt, tuple(tags)


def _line(kind: str, record: Any) -> str:
    return json.dumps({"type": kind, **dataclasses.asdict(record)}, ensure_ascii=False) + "\n"
