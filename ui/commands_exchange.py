"""``chatrlhf export`` and ``chatrlhf import``: everything that people said, as files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ui.terminal import Data, Json, open_rows, print_json, say, settings_of

if TYPE_CHECKING:
    from chatrlhf.loop.exchange.imports import ImportReport

_ERRORS_SHOWN = 20


class ExportFormat(StrEnum):
    """What ``--format`` takes."""

    jsonl = "jsonl"
    parquet = "parquet"
    trl = "trl"
    trl_sft = "trl-sft"


def export(
    output: Annotated[
        Path | None, typer.Option(help="File to write (default: standard output).")
    ] = None,
    *,
    format_name: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="jsonl or parquet: whole, can be imported again; trl: a line for each ordered "
            "pair; trl-sft: a line for each demonstration.",
        ),
    ] = ExportFormat.jsonl,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Write conversations, rankings, labels and demonstrations to a file.

    jsonl and parquet hold everything, with versions, seeds and sampling settings; `chatrlhf
    import` reads them without loss. trl (preference) and trl-sft (prompt-completion) open in
    TRL's RewardTrainer, DPOTrainer and SFTTrainer:

    datasets.load_dataset("json", data_files="out.jsonl")
    """
    from chatrlhf.errors import BadInputError
    from chatrlhf.loop.exchange.exports import EXPORTS

    chosen = EXPORTS[format_name.value]
    db = open_rows(settings_of(data))
    if output is None:
        if chosen.name == "parquet" and sys.stdout.isatty():
            raise BadInputError("Parquet is no text for a terminal. Name a file with --output.")
        for _, part in chosen.parts(db, None):
            sys.stdout.buffer.write(part)
        sys.stdout.flush()
        return
    total = chosen.records(db, None)
    with _whole_file(output) as file, _bar() as bar:
        task = bar.add_task("Exporting", total=max(total, 1))
        count = 0
        for records, part in chosen.parts(db, None):
            file.write(part)
            count += records
            bar.update(task, completed=count)
    if json_output:
        print_json({"file": str(output), "format": chosen.name, "records": count})
    else:
        say(f"{count:,} records written to {output}.")


def import_files(
    files: Annotated[list[Path], typer.Argument(help="Files to import, in this order.")],
    *,
    mine: Annotated[
        bool,
        typer.Option("--mine", help="All ratings are your own, whoever the file says gave them."),
    ] = False,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Import ratings and demonstrations; what is here already is recognised.

    Each record shows its own format:

    - this program's export (jsonl, parquet), without loss;

    - hh-rlhf and TRL: chosen and rejected, with or without a prompt; prompt and completion, with
    or without a label; messages; prompts alone go to the pool;

    - exports of Argilla (to_json, datasets), Label Studio (JSON) and Open WebUI (feedback, chats).

    Files are JSON Lines, JSON or Parquet, also gzipped. A record that is refused is named with its
    line, and the others are kept. Exit code 1 when any was refused.
    """
    from chatrlhf.loop.exchange.imports import import_records
    from chatrlhf.loop.exchange.record_files import opened
    from storage.people import operator

    db = open_rows(settings_of(data))
    me = operator(db)
    reports = {}
    for path in files:
        with opened(path) as file, _bar() as bar:
            task = bar.add_task(path.name, total=1.0)

            def show(report: ImportReport, bar: Progress = bar, task: Any = task) -> None:
                bar.update(task, completed=report.fraction)

            reports[str(path)] = import_records(
                db, file, me, mine=mine, name=path.name, progress=show
            )
        if not json_output:
            _tell(path, reports[str(path)])
    if json_output:
        print_json({name: report.as_json() for name, report in reports.items()})
    raise typer.Exit(1 if any(report.failed for report in reports.values()) else 0)


def _tell(path: Path, report: ImportReport) -> None:
    say(f"{path}: {report.sentence()}")
    if report.added:
        say(f"To take it back: chatrlhf imports undo {report.import_id}")
    for error in report.errors[:_ERRORS_SHOWN]:
        typer.echo(f"{path}, line {error.line}: {error.message}", err=True)
    if report.failed > _ERRORS_SHOWN:
        more = report.failed - _ERRORS_SHOWN
        typer.echo(f"... and {more:,} more; --json tells the first thousand.", err=True)


def _bar() -> Progress:
    """A progress bar on standard error, since standard output may be for a program."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is complete."""
    from chatrlhf.errors import BadInputError

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error}. Name another file.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
