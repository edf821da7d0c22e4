"""The program's own format: one whole record of `storage.archive` a line, as JSON or in Parquet."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from chatrlhf.errors import BadInputError
from storage.archive import Archived, ArchivedConversation, ArchivedDemonstration

if TYPE_CHECKING:
    import pyarrow

FORMAT = "chatrlhf-1"
_KINDS: dict[str, type[ArchivedConversation] | type[ArchivedDemonstration]] = {
    "conversation": ArchivedConversation,
    "demonstration": ArchivedDemonstration,
}


def is_own(row: Mapping[str, Any]) -> bool:
    """Whether a line is of this format, of whatever version."""
    return isinstance(row.get("format"), str) and row["format"].startswith("chatrlhf-")


def as_row(record: Archived) -> dict[str, Any]:
    """The record as a JSON object."""
    kind = "conversation" if isinstance(record, ArchivedConversation) else "demonstration"
    return {"format": FORMAT, "type": kind, **dataclasses.asdict(record)}


def as_line(record: Archived) -> str:
    """The record as a line of JSON."""
    row = as_row(record)
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def record_of(row: Mapping[str, Any]) -> Archived:
    """The record of a line or a Parquet row.

    Raises:
        BadInputError: a newer program wrote it, or a value is missing or wrong; says which.
    """
    if row["format"] != FORMAT:
        raise BadInputError(
            f"its format is {row['format']!r}, but this program knows {FORMAT!r}; update it"
        )
    kind = row.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadInputError(f"its type is {kind!r}; it must be one of {', '.join(_KINDS)}")
    try:
        # Through JSON: strict types, but lists for tuples.
        record: Archived = _adapter(kind).validate_json(json.dumps(_plain(row)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInputError(f"{where}: {first['msg']}") from error
    except ValueError as error:
        raise BadInputError(str(error)) from error
    return record


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(_KINDS[kind])


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the shapes of JSON where Parquet needs others."""
    plain = {name: value for name, value in row.items() if value is not None}
    if isinstance(plain.get("turns"), list):
        plain["turns"] = [_with_replies(turn, _sampling_object) for turn in plain["turns"]]
    return plain


def _with_replies(turn: Any, change: Any) -> Any:
    if not isinstance(turn, dict) or not isinstance(turn.get("replies"), list | tuple):
        return turn
    return {**turn, "replies": [change(reply) for reply in turn["replies"]]}


def _sampling_object(reply: Any) -> Any:
    if not isinstance(reply, dict) or not isinstance(reply.get("sampling"), str):
        return reply
    logprobs = [_number(one) for one in reply.get("logprobs") or ()]
    return {**reply, "sampling": json.loads(reply["sampling"]), "logprobs": logprobs}


def _number(value: float) -> float | str:
    finite = value == value and abs(value) != float("inf")
    return value if finite else str(value)


def as_arrow_row(record: Archived) -> dict[str, Any]:
    """The record as a Parquet row: sampling settings as JSON text, numbers as numbers."""
    row = as_row(record)
    if "turns" in row:
        row["turns"] = [_with_replies(turn, _arrow_reply) for turn in row["turns"]]
    return row


def _arrow_reply(reply: dict[str, Any]) -> dict[str, Any]:
    sampling = json.dumps(reply["sampling"], ensure_ascii=False)
    return {**reply, "sampling": sampling, "logprobs": [float(one) for one in reply["logprobs"]]}


def arrow_schema() -> pyarrow.Schema:
    """The columns of the Parquet file; those that a record does not have are null."""
    import pyarrow as pa

    text, whole, real, flag = pa.string(), pa.int64(), pa.float64(), pa.bool_()

    def rows(**columns: pa.DataType) -> pa.DataType:
        return pa.list_(pa.struct(list(columns.items())))

    said = {"person": text, "created_at": text}
    labels = rows(label=text, value=flag, **said)
    replies = rows(
        id=whole,
        position=whole,
        text=text,
        version=text,
        seed=whole,
        sampling=text,
        state=text,
        finish_reason=text,
        slot_type=text,
        created_at=text,
        candidate=whole,
        score=real,
        propensity=real,
        token_ids=pa.list_(pa.uint32()),
        logprobs=pa.list_(pa.float32()),
        labels=labels,
    )
    rankings = rows(
        id=whole,
        **said,
        ranks=rows(reply_id=whole, rank=whole),
        strength=whole,
        comment=text,
        all_bad=flag,
        state=text,
        revision_of=whole,
        idempotency_key=text,
    )
    choice = {
        "policy": text,
        "candidates": whole,
        "version": text,
        "scores": pa.list_(real),
        "note": text,
    }
    turns = rows(
        id=whole,
        parent_reply_id=whole,
        text=text,
        created_at=text,
        choice=pa.struct(list(choice.items())),
        replies=replies,
        rankings=rankings,
        demonstrations=rows(text=text, **said),
    )
    messages = rows(role=text, content=text)
    columns = {
        "format": text,
        "type": text,
        "id": whole,
        "person": text,
        "created_at": text,
        "title": text,
        "system_prompt": text,
        "origin": text,
        "origin_key": text,
        "turns": turns,
        "messages": messages,
        "text": text,
    }
    return pa.schema(list(columns.items()))
