"""Files of records, read one record at a time: JSON Lines, a JSON array, Parquet, or gzipped.

What the bytes are decides, not the name. A line that cannot be read is an error of its own; the
lines after it are still read, where it is known where they begin.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from chatrlhf.errors import BadInputError

LINE_LIMIT_BYTES = 32 * 1024 * 1024
ARRAY_LIMIT_BYTES = 512 * 1024 * 1024
EXPANDED_LIMIT_BYTES = 4 * 1024 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PARQUET_ROWS = 100


@dataclass(frozen=True)
class Row:
    """One record, or why there is none; ``line`` counts from 1 (in Parquet: rows).

    ``fraction`` of the file had been read when it came.
    """

    line: int
    value: Any = None
    problem: str = ""
    fraction: float = 0.0


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file for reading, or BadInputError."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}. Name another file."
        ) from error


def read_records(file: BinaryIO) -> Iterator[Row]:
    """The records of an open file that can seek.

    Raises:
        BadInputError: it is none of the kinds of files, or is empty.
    """
    size = max(file.seek(0, io.SEEK_END), 1)
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if start == b"PAR1":
        yield from _parquet_rows(file)
        return
    if start[:2] == b"PK":
        raise BadInputError("The file is a ZIP archive. Unpack it and import what is in it.")
    is_packed = start[:2] == b"\x1f\x8b"
    source = gzip.GzipFile(fileobj=file) if is_packed else file
    text = _Lines(source, lambda: min(file.tell() / size, 1.0))
    try:
        first = text.first_character()
    except (EOFError, OSError, zlib.error) as error:
        raise BadInputError(f"The file cannot be unpacked: {error}. Get it again.") from error
    if not first:
        raise BadInputError("The file is empty. Choose another one.")
    yield from _array_rows(text) if first == b"[" else _line_rows(text)


class _Lines:
    """Lines of a binary file, none too long, and how far it is read."""

    def __init__(self, source: BinaryIO | gzip.GzipFile, fraction: Callable[[], float]) -> None:
        self._source = source
        self._fraction = fraction
        self._kept: list[bytes] = []
        self._read = 0

    @property
    def fraction(self) -> float:
        """The part of the file that has been read."""
        return self._fraction()

    def first_character(self) -> bytes:
        """The first byte that is no space; nothing is consumed."""
        for line in self._lines():
            self._kept.append(line)
            stripped = line.strip()
            if stripped:
                return stripped[:1]
        return b""

    def __iter__(self) -> Iterator[bytes]:
        yield from self._kept
        yield from self._lines()

    def _lines(self) -> Iterator[bytes]:
        while line := self._source.readline(LINE_LIMIT_BYTES + 1):
            if not self._read:
                line = line.removeprefix(_BYTE_ORDER_MARK) or b"\n"
            self._read += len(line)
            if self._read > EXPANDED_LIMIT_BYTES:
                raise BadInputError(f"it has more than {EXPANDED_LIMIT_BYTES:,} bytes; split it")
            yield line


def _line_rows(text: _Lines) -> Iterator[Row]:
    number = 0
    lines = iter(text)
    while True:
        number += 1
        try:
            line = next(lines, None)
            if line is None:
                return
            if len(line) > LINE_LIMIT_BYTES:
                raise BadInputError(f"it is longer than {LINE_LIMIT_BYTES:,} bytes; split it")
        except (EOFError, OSError, zlib.error, BadInputError) as error:
            yield Row(number, problem=f"{error}. The rest of the file was not read.")
            return
        if not line.strip():
            continue
        try:
            yield Row(number, parse_json(line.decode("utf-8")), fraction=text.fraction)
        except ValueError as error:
            yield Row(number, problem=f"{error}. Correct the line.", fraction=text.fraction)


def _array_rows(text: _Lines) -> Iterator[Row]:
    """The elements of one JSON array, each with the line where it begins."""
    parts: list[bytes] = []
    size = 0
    try:
        for line in text:
            parts.append(line)
            size += len(line)
            if size > ARRAY_LIMIT_BYTES:
                raise BadInputError(
                    f"A JSON array of more than {ARRAY_LIMIT_BYTES:,} bytes does not fit; export "
                    "it as JSON Lines, or in parts."
                )
        whole = b"".join(parts).decode("utf-8")
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise BadInputError(f"The file cannot be read: {error}. Get it again.") from error
    yield from _elements(whole)


def _elements(whole: str) -> Iterator[Row]:
    place, line, seen = _after_space(whole, whole.index("[") + 1), 1, 0
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    while whole[place : place + 1] != "]":
        line, seen = line + whole.count("\n", seen, place), place
        fraction = place / len(whole)
        try:
            value, place = decoder.raw_decode(whole, place)
        except (ValueError, RecursionError) as error:
            problem = f"{_words(error)}. The rest of the file was not read: correct it."
            yield Row(line, problem=problem, fraction=1.0)
            return
        yield Row(line, value, fraction=fraction)
        place = _after_space(whole, place)
        if whole[place : place + 1] == ",":
            place = _after_space(whole, place + 1)
        elif whole[place : place + 1] != "]":
            problem = "the array has no end here. The rest of the file was not read: correct it."
            yield Row(line + whole.count("\n", seen, place), problem=problem, fraction=1.0)
            return


def _after_space(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\n", "\r", "\t"):
        place += 1
    return place


def _parquet_rows(file: BinaryIO) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        table = ParquetFile(file)
        total = max(table.metadata.num_rows, 1)
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
            for value in batch.to_pylist():
                number += 1
                yield Row(number, value, fraction=number / total)
    except (ArrowException, OSError, ValueError) as error:
        if number == 0:
            raise BadInputError(f"The Parquet file cannot be read: {error}.") from error
        problem = f"the Parquet file is damaged from here on ({error}). Get it again."
        yield Row(number + 1, problem=problem, fraction=1.0)


def parse_json(text: str) -> Any:
    """A JSON value; ValueError, in words, where it is none."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(_words(error)) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no valid JSON ({error.msg}, column {error.colno})"
    return str(error)
