"""Files of ratings into rows, record by record.

A record is written whole or not at all; one that is refused is an error with its line, and the
others are kept. A record that is here already adds nothing, so an import that broke off is simply
run again. Records are written in short transactions, so that people who rate meanwhile do not wait.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO

from chatrlhf.errors import BadInputError, ChatRLHFError, ConflictError, StorageError
from chatrlhf.loop.exchange.examples import (
    PoolPrompt,
    RatedReplies,
    as_conversation,
    as_demonstration,
)
from chatrlhf.loop.exchange.formats import find_examples
from chatrlhf.loop.exchange.own_format import is_own, record_of
from chatrlhf.loop.exchange.record_files import Row, read_records
from storage import imports, people, prompts
from storage.archive import Archived, ArchivedConversation
from storage.database import Database
from storage.records import Message, Person
from storage.restore import Added, Restorer
from storage.restore_values import Wrote, unlogged
from storage.values import now

ERRORS_KEPT = 1000
_BATCH_SECONDS = 0.2
_TRANSACTION_SECONDS = 0.01
_BATCH_RECORDS = 100
_PAUSE_SECONDS = 0.001
_OWN = "chatrlhf"


@dataclass(frozen=True)
class LineError:
    """Why a record was not taken; ``line`` counts from 1 (in Parquet: rows)."""

    line: int
    message: str


@dataclass(frozen=True)
class ImportReport:
    """What an import has done so far; ``errors`` holds the first ones, ``failed`` counts all.

    ``import_id`` names it, so that it can be undone.
    """

    records: int = 0
    added: Added = field(default_factory=Added)
    duplicates: int = 0
    failed: int = 0
    errors: tuple[LineError, ...] = ()
    formats: dict[str, int] = field(default_factory=dict)
    fraction: float = 0.0
    import_id: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        return asdict(self)

    def sentence(self) -> str:
        """The report for people."""
        kinds = asdict(self.added).items()
        added = ", ".join(f"{count:,} {kind}" for kind, count in kinds if count) or "nothing new"
        failed = f"{self.failed:,} refused" if self.failed else "none refused"
        return (
            f"{self.records:,} records read: {added}; {self.duplicates:,} were here already, "
            f"{failed}."
        )


Progress = Callable[[ImportReport], None]


def import_records(
    db: Database,
    file: BinaryIO,
    importer: Person,
    *,
    mine: bool = False,
    name: str = "",
    progress: Progress | None = None,
) -> ImportReport:
    """Write the records of an open file; see `import_steps`."""
    report = ImportReport()
    for report in import_steps(db, file, importer, mine=mine, name=name):
        if progress is not None:
            progress(report)
    return report


def import_steps(
    db: Database, file: BinaryIO, importer: Person, *, mine: bool = False, name: str = ""
) -> Iterator[ImportReport]:
    """Write the records of an open file that can seek; gives the report after each batch.

    Conversations of data sets belong to ``importer``. An admin keeps raters apart: each is a
    person, made where there is none, whose ratings of the same replies meet. With ``mine``, and
    for everybody else, all ratings are the importer's, and a file of this program's own that
    holds other people's is refused. What is written can be taken back: `storage.imports`, where
    ``name`` (of the file) tells imports apart.

    Raises:
        BadInputError: it is no file of records at all.
        StorageError: the database cannot be written; what was written before is whole.
    """
    writer = _Writer(db, importer, mine=mine)
    rows = read_records(file)
    while prepared := list(_prepared(rows, writer)):
        if writer.report.import_id is None:  # not for a file that is none
            writer.begin(imports.start_import(db, importer.id, name))
        try:
            yield writer.write(prepared)
        except StorageError as error:
            raise StorageError(
                f"{error}. {writer.report.records:,} records before were imported; import the file "
                "again later, those are recognised"
            ) from error
    report = replace(writer.report, fraction=1.0)
    told = {**report.as_json(), "errors": []}
    if report.import_id is not None:
        imports.finish_import(db, report.import_id, told)
    people.add_audit(db, importer.id, "import", told)
    yield report


@dataclass(frozen=True)
class _Prepared:
    """A record on its way: what to write, or why not."""

    row: Row
    origin: str = ""
    parts: tuple[Archived | PoolPrompt, ...] = ()
    problem: str = ""


def _prepared(rows: Iterator[Row], writer: _Writer) -> Iterator[_Prepared]:
    """Records to write together, read and checked as far as that goes without the database."""
    end = time.monotonic() + _BATCH_SECONDS
    for row in itertools.islice(rows, _BATCH_RECORDS):
        if row.problem:
            yield _Prepared(row, problem=row.problem)
            continue
        try:
            origin, parts = writer.parts(row.value)
            yield _Prepared(row, origin, tuple(parts))
        except BadInputError as error:
            yield _Prepared(row, problem=f"{str(error).rstrip('.')}. Correct or remove the record.")
        if time.monotonic() > end:
            return


class _Writer:
    """Writes batches, and keeps the report."""

    def __init__(self, db: Database, importer: Person, *, mine: bool) -> None:
        self.report = ImportReport()
        self._db = db
        self._importer = importer
        self._keeps_raters = importer.role == "admin" and not mine
        self._mine = mine
        self._wrote: Wrote = unlogged
        self._restorer = Restorer(db, self._person_id)
        self._moment = now()

    def begin(self, import_id: int) -> None:
        """Note from now on what is written."""
        self.report = replace(self.report, import_id=import_id)
        self._wrote = imports.log_of(self._db, import_id)
        self._restorer = Restorer(self._db, self._person_id, self._wrote)

    def parts(self, value: Any) -> tuple[str, Sequence[Archived | PoolPrompt]]:
        """The format of a record, and what to write; BadInputError."""
        if not isinstance(value, dict):
            raise BadInputError(f"it is {type(value).__name__}, not an object")
        if is_own(value):
            return _OWN, [record_of(value)]
        found = find_examples(value)
        parts: list[Archived | PoolPrompt] = []
        for example in found.examples:
            if isinstance(example, PoolPrompt):
                parts.append(example)
                continue
            if not self._keeps_raters:
                example = replace(example, rater="")
            rater = (
                f"{found.origin}:{example.rater}"[:100] if example.rater else self._importer.name
            )
            if isinstance(example, RatedReplies):
                owner = self._importer.name
                parts.append(as_conversation(example, found.origin, owner, rater, self._moment))
            else:
                parts.append(as_demonstration(example, rater, self._moment))
        return found.origin, parts

    def write(self, batch: Sequence[_Prepared]) -> ImportReport:
        """Write a batch in short transactions, each record whole or not at all."""
        waiting = deque(batch)
        while waiting:
            report = self.report
            with self._db.transaction():
                end = time.monotonic() + _TRANSACTION_SECONDS
                while waiting and time.monotonic() < end:
                    one = waiting.popleft()
                    report = replace(self._with(report, one), fraction=one.row.fraction)
            self.report = report
            time.sleep(_PAUSE_SECONDS)  # lets somebody's rating in between
        return self.report

    def _with(self, report: ImportReport, one: _Prepared) -> ImportReport:
        report = replace(report, records=report.records + 1)
        problem = one.problem
        if not problem:
            try:
                with self._db.savepoint():
                    added = sum((self._write(part, one.origin) for part in one.parts), Added())
            except (StorageError, AssertionError):
                raise
            except ChatRLHFError as error:
                problem = f"{str(error).rstrip('.')}. Correct or remove the record."
            else:
                count = report.formats.get(one.origin, 0) + 1
                return replace(
                    report,
                    added=report.added + added,
                    duplicates=report.duplicates + (not added),
                    formats={**report.formats, one.origin: count},
                )
        errors = report.errors
        if len(errors) < ERRORS_KEPT:
            errors = (*errors, LineError(one.row.line, problem))
        return replace(report, failed=report.failed + 1, errors=errors)

    def _write(self, part: Archived | PoolPrompt, origin: str) -> Added:
        if isinstance(part, PoolPrompt):
            text, system_prompt = _question(part.messages)
            row = prompts.prompt_row(text, system_prompt, [origin])
            if not prompts.insert_prompts(self._db.connection(), [row]):
                return Added()
            self._wrote("prompt", prompts.find_prompt(self._db, text).id)
            return Added(prompts=1)
        if isinstance(part, ArchivedConversation):
            return self._restorer.conversation(part)
        return self._restorer.demonstration(part, by_content=origin != _OWN)

    def _person_id(self, name: str) -> int:
        """The person of a name in the file."""
        if self._mine or name == self._importer.name:
            return self._importer.id
        if self._keeps_raters:
            return people.person_id_of(self._db, name)
        if name == people.LOCAL_NAME:  # the one person of another computer
            return self._importer.id
        raise BadInputError(
            f"it holds ratings of {name!r}, and only an admin can import those of other people; "
            "ask one, or import them as your own"
        )


def _question(messages: Sequence[Message]) -> tuple[str, str]:
    """Text and system prompt of a prompt for the pool."""
    *before, last = messages
    if last.role != "user" or any(message.role != "system" for message in before) or before[1:]:
        raise ConflictError("a prompt of the pool is one message, after a system prompt at most")
    return last.content, before[0].content if before else ""
