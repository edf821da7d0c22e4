"""Files of prompts for the pool: text, CSV or JSON Lines, with an error for each wrong line.

    text   one prompt a line; blank lines are left out
    csv    a header that names ``text`` (or ``prompt``); ``system_prompt`` and ``tags`` may follow
    jsonl  lines such as {"text": ..., "system_prompt": ..., "tags": [...]}, or strings

With a task template each text is what goes into the template.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, Literal

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange.imports import ERRORS_KEPT, LineError
from chatrlhf.loop.exchange.record_files import read_records
from chatrlhf.loop.task_templates import TaskTemplate, fill_template
from storage import prompts
from storage.database import Database

Kind = Literal["text", "csv", "jsonl"]

_TEXT_COLUMNS = ("text", "prompt", "question", "instruction")
_KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_BATCH = 200
_PAUSE_SECONDS = 0.001
_MOST_TAGS = 16
_LONGEST_TAG = 40


@dataclass(frozen=True)
class PromptLine:
    """A prompt of a file as the columns of its row, or why it is none; ``line`` counts from 1."""

    line: int
    row: tuple[str, ...] = ()
    problem: str = ""
    fraction: float = 0.0


@dataclass(frozen=True)
class PromptReport:
    """What an import of prompts has done so far; ``errors`` holds the first ones."""

    lines: int = 0
    added: int = 0
    duplicates: int = 0
    failed: int = 0
    errors: tuple[LineError, ...] = ()
    fraction: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        return asdict(self)


def kind_of(name: str) -> Kind:
    """What a file holds, by its name; text where that does not say."""
    dot = name.rfind(".")
    return _KINDS.get(name[dot:].lower() if dot >= 0 else "", "text")


def read_prompts(
    file: BinaryIO, kind: Kind, *, template: TaskTemplate | None = None, tags: Sequence[str] = ()
) -> Iterator[PromptLine]:
    """The prompts of an open file; ``tags`` are added to each.

    Raises:
        BadInputError: it is no such file at all: it is empty, or its header names no text.
    """
    readers = {"text": _text_values, "csv": _csv_values, "jsonl": _jsonl_values}
    found = False
    for line, value, problem, fraction in readers[kind](file):
        found = True
        if not problem:
            try:
                row = _row(value, template, tags)
            except BadInputError as error:
                problem = str(error)
            else:
                yield PromptLine(line, row, fraction=fraction)
                continue
        yield PromptLine(line, problem=f"{problem.rstrip('.')}.", fraction=fraction)
    if not found:
        raise BadInputError("The file has no prompts. Choose another one.")


def import_steps(db: Database, lines: Iterator[PromptLine]) -> Iterator[PromptReport]:
    """Add prompts to the pool in short transactions; gives the report after each.

    A line that is refused is an error, the others are kept. What the pool has already is counted
    as a duplicate.
    """
    report, batch = PromptReport(), []
    for line in lines:
        batch.append(line)
        if len(batch) == _BATCH:
            report = _write(db, batch, report)
            batch = []
            yield report
            time.sleep(_PAUSE_SECONDS)  # lets somebody's rating in between
    yield replace(_write(db, batch, report), fraction=1.0)


def _write(db: Database, batch: Sequence[PromptLine], report: PromptReport) -> PromptReport:
    good = [one for one in batch if not one.problem]
    bad = [LineError(one.line, one.problem) for one in batch if one.problem]
    with db.transaction() as connection:
        added = prompts.insert_prompts(connection, [one.row for one in good])
    return PromptReport(
        lines=report.lines + len(batch),
        added=report.added + added,
        duplicates=report.duplicates + len(good) - added,
        failed=report.failed + len(bad),
        errors=(*report.errors, *bad)[:ERRORS_KEPT],
        fraction=batch[-1].fraction if batch else report.fraction,
    )


def _row(value: Any, template: TaskTemplate | None, tags: Sequence[str]) -> tuple[str, ...]:
    """The columns of a prompt that stands in a file as a string or an object."""
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise BadInputError('a prompt is a text, or an object with a "text"')
    text = next((value[name] for name in _TEXT_COLUMNS if value.get(name) is not None), None)
    if not isinstance(text, str):
        raise BadInputError('a prompt is an object with a "text"')
    system_prompt = value.get("system_prompt") or ""
    own_tags = value.get("tags") or []
    if not isinstance(system_prompt, str):
        raise BadInputError('"system_prompt" must be text')
    if not isinstance(own_tags, list) or not all(isinstance(tag, str) for tag in own_tags):
        raise BadInputError('"tags" must be a list of texts')
    every = [*own_tags, *tags]
    if template is not None:
        text = fill_template(template, {"text": text})
        every += [template.tag] if template.tag else []
    _check_tags(every)
    return tuple(prompts.prompt_row(text, system_prompt, every))


def _check_tags(tags: Sequence[str]) -> None:
    if len(set(tags)) > _MOST_TAGS:
        raise BadInputError(f"it has {len(set(tags))} tags; at most {_MOST_TAGS} are taken")
    for tag in tags:
        if len(tag) > _LONGEST_TAG:
            raise BadInputError(
                f"the tag {tag[:20]!r}... has {len(tag)} characters; at most {_LONGEST_TAG}"
            )


_Values = Iterator[tuple[int, Any, str, float]]  # line, value, problem, fraction


def _decoded_lines(file: BinaryIO) -> Iterator[tuple[int, str, str, float]]:
    """Lines as text; those that are no UTF-8 come with a problem instead."""
    size = max(file.seek(0, io.SEEK_END), 1)
    file.seek(0)
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        fraction = min(file.tell() / size, 1.0)
        try:
            yield number, line.decode("utf-8"), "", fraction
        except UnicodeDecodeError:
            yield number, "", "it is no UTF-8 text; save the file as UTF-8", fraction


def _text_values(file: BinaryIO) -> _Values:
    for number, line, problem, fraction in _decoded_lines(file):
        if line.strip() or problem:
            yield number, line.strip(), problem, fraction


def _csv_values(file: BinaryIO) -> _Values:
    whole = file.read()
    try:
        text = whole.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = whole[: error.start].count(b"\n") + 1
        raise BadInputError(
            f"Line {line} is no UTF-8 text. Save the file as CSV in UTF-8."
        ) from error
    lines = max(text.count("\n"), 1)
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problem = f"it is no valid CSV ({error}). The rest of the file was not read"
            yield number, None, problem, 1.0
            return
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = _columns(cells)
            continue
        fraction = min(reader.line_num / lines, 1.0)
        if len(cells) > len(names):
            problem = f"it has {len(cells)} columns, but the header names {len(names)}"
            yield number, None, problem, fraction
            continue
        value: dict[str, Any] = dict(zip(names, cells, strict=False))
        listed = value.get("tags", "").replace(";", ",").split(",")
        value["tags"] = [tag.strip() for tag in listed if tag.strip()]
        yield number, value, "", fraction


def _columns(cells: Sequence[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if not set(names) & set(_TEXT_COLUMNS):
        shown = ", ".join(cell.strip()[:40] for cell in cells)
        raise BadInputError(
            f"The first line of the CSV file names no column text or prompt, but: {shown}. "
            "Add a header."
        )
    return names


def _jsonl_values(file: BinaryIO) -> _Values:
    for row in read_records(file):
        yield row.line, row.value, row.problem, row.fraction
