"""``chatrlhf prompts``: the pool of prompts, from files, by hand and by task templates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ui.terminal import Data, Json, open_rows, print_json, print_table, say, settings_of

prompts_app = typer.Typer(help="The pool of prompts.", no_args_is_help=True)

Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="A tag for each prompt; may be repeated.")
]
Template = Annotated[
    str | None,
    typer.Option(help="A task template that each text goes into; see `prompts templates`."),
]
_ERRORS_SHOWN = 20
_CHARACTERS_SHOWN = 100


@prompts_app.callback()
def prompts() -> None:
    """The pool of prompts, for queues, rollouts and simulated raters."""


@prompts_app.command("import")
def import_prompts(
    file: Annotated[
        Path,
        typer.Argument(
            help="Text, one prompt a line; .csv with a column text; or .jsonl, lines such as "
            '{"text": ..., "system_prompt": ..., "tags": [...]}.'
        ),
    ],
    *,
    tag: Tags = None,
    template: Template = None,
    skip_wrong: Annotated[
        bool, typer.Option("--skip-wrong", help="Add the others where lines are wrong.")
    ] = False,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Add prompts to the pool; those it has already are left out. All lines, or none.

    With --skip-wrong the lines that are right are added, and the exit code is 1 when any was wrong.
    """
    from chatrlhf.errors import BadInputError
    from chatrlhf.loop.exchange.prompt_files import import_steps, kind_of, read_prompts
    from chatrlhf.loop.exchange.record_files import opened
    from chatrlhf.loop.task_templates import find_template

    chosen = find_template(template) if template else None
    db = open_rows(settings_of(data))
    with opened(file) as source:
        lines = list(read_prompts(source, kind_of(file.name), template=chosen, tags=tag or []))
    wrong = [line for line in lines if line.problem]
    if wrong and not skip_wrong:
        first = wrong[0]
        more = f" ({len(wrong) - 1} more lines are wrong.)" if len(wrong) > 1 else ""
        raise BadInputError(
            f"{file}, line {first.line}: {first.problem}{more} Nothing was added; correct the "
            "file, or add the other lines with --skip-wrong."
        )
    report = list(import_steps(db, iter(lines)))[-1]
    if json_output:
        print_json(report.as_json())
    else:
        say(f"{report.added} of {report.lines} prompts added.")
        for error in report.errors[:_ERRORS_SHOWN]:
            typer.echo(f"{file}, line {error.line}: {error.message}", err=True)
    raise typer.Exit(1 if report.failed else 0)


@prompts_app.command("list")
def list_prompts(
    *,
    tag: Annotated[str | None, typer.Option(help="Only prompts that have this tag.")] = None,
    containing: Annotated[str, typer.Option(help="Only prompts with this text.")] = "",
    json_output: Json = False,
    data: Data = None,
) -> None:
    """The pool, oldest first."""
    from storage import prompts as pool
    from storage import queue_items

    db = open_rows(settings_of(data))
    found = pool.list_prompts(db, tag=tag, containing=containing)
    ratings = queue_items.rating_counts(db)
    if json_output:
        rows = [{**dataclasses.asdict(one), "ratings": ratings.get(one.id, 0)} for one in found]
        print_json(rows)
        return
    if not found:
        say("No prompts. Add some: chatrlhf prompts import FILE, or chatrlhf prompts add TEXT")
        return
    print_table(
        ("id", "prompt", "tags", "ratings"),
        ((one.id, _short(one.text), ", ".join(one.tags), ratings.get(one.id, 0)) for one in found),
    )


@prompts_app.command("add")
def add_prompt(
    text: Annotated[str, typer.Argument(help="The prompt, or the text for a template.")],
    *,
    system_prompt: Annotated[str, typer.Option(help="A system prompt to go with it.")] = "",
    tag: Tags = None,
    template: Template = None,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Add one prompt to the pool."""
    from chatrlhf.loop.task_templates import fill_template, find_template
    from storage import prompts as pool

    tags = list(tag or [])
    if template:
        chosen = find_template(template)
        text = fill_template(chosen, {"text": text})
        tags += [chosen.tag] if chosen.tag else []
    added = pool.add_prompts(open_rows(settings_of(data)), [(text, system_prompt, tags)])
    if json_output:
        print_json({"added": added})
    else:
        say("Added." if added else "The pool has this prompt already.")


@prompts_app.command("delete")
def delete_prompts(
    ids: Annotated[list[int], typer.Argument(help="Ids of prompts; `prompts list` shows them.")],
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Bring deleted prompts back.")] = False,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Take prompts out of the pool; their ratings stay. Within a day --undo brings them back."""
    from storage import prompts as pool

    db = open_rows(settings_of(data))
    for prompt_id in ids:
        if undo:
            pool.restore_prompt(db, prompt_id)
        else:
            pool.delete_prompt(db, prompt_id)
    if json_output:
        print_json({"restored" if undo else "deleted": ids})
    else:
        say(f"{len(ids)} {'restored' if undo else 'deleted'}.")


@prompts_app.command("templates")
def list_templates(*, json_output: Json = False) -> None:
    """The kinds of tasks that prompts can be written by."""
    from chatrlhf.loop.task_templates import TEMPLATES

    if json_output:
        print_json([dataclasses.asdict(one) for one in TEMPLATES])
        return
    print_table(
        ("name", "what for", "fields"),
        ((one.name, one.hint, ", ".join(field.name for field in one.fields)) for one in TEMPLATES),
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CHARACTERS_SHOWN else f"{line[: _CHARACTERS_SHOWN - 3]}..."
