"""Values on their way into and out of rows: text, times, JSON, number lists, hashes."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
import struct
from collections.abc import Sequence
from typing import Any

from chatrlhf.errors import BadInputError

TEXT_LIMIT_BYTES = 64 * 1024
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)


def checked_text(
    text: str, what: str, *, may_be_blank: bool = False, limit: int = TEXT_LIMIT_BYTES
) -> str:
    """The text itself, byte for byte.

    Raises:
        BadInputError: it is blank, over ``limit`` bytes of UTF-8, or has NUL or lone surrogates.
    """
    if not isinstance(text, str):
        raise BadInputError(f"{what} must be text, not {type(text).__name__}")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise BadInputError(
            f"{what} has half of a character (a lone surrogate) at place {error.start + 1}; "
            "send it again as valid Unicode"
        ) from None
    if "\x00" in text:
        raise BadInputError(
            f"{what} has a NUL character at place {text.index(chr(0)) + 1}; remove it"
        )
    if not may_be_blank and not text.strip():
        raise BadInputError(f"{what} is empty; write something first")
    if size > limit:
        raise BadInputError(f"{what} has {size:,} bytes; the limit is {limit:,}; shorten it")
    return text


def generated_text(text: str) -> str:
    """Text of a model, where NUL and lone surrogates become U+FFFD: nobody can send it again."""
    return _UNSTORABLE.sub("\ufffd", text)


def checked_integer(value: int, what: str) -> int:
    """The value, if it is an integer that SQLite can hold, else BadInputError."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
        raise BadInputError(f"{what} is {value!r}; it must be an integer of at most 64 bits")
    return value


def now(moment: datetime.datetime | None = None) -> str:
    """This moment, or another, ISO 8601 in UTC with milliseconds."""
    moment = moment or datetime.datetime.now(datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sha256_of(text: str) -> str:
    """Hexadecimal SHA-256 of the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def to_json(value: Any) -> str:
    """Canonical JSON; numbers that are not finite become null, which JSON can hold."""
    return json.dumps(
        _finite(value), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def pack_integers(values: Sequence[int]) -> bytes:
    """Little-endian unsigned 32-bit numbers, four bytes each."""
    try:
        return struct.pack(f"<{len(values)}I", *values)
    except struct.error as error:
        raise BadInputError(
            f"token ids must be whole numbers from 0 to 2**32 - 1: {error}"
        ) from None


def unpack_integers(data: bytes) -> tuple[int, ...]:
    """What `pack_integers` packed."""
    return struct.unpack(f"<{len(data) // 4}I", data)


def pack_floats(values: Sequence[float]) -> bytes:
    """Little-endian 32-bit floats, four bytes each."""
    return struct.pack(f"<{len(values)}f", *values)


def unpack_floats(data: bytes) -> tuple[float, ...]:
    """What `pack_floats` packed, rounded to 32-bit floats."""
    return struct.unpack(f"<{len(data) // 4}f", data)
