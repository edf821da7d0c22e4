"""Records of Argilla: ``to_json`` of version 2, its flattened datasets, and version 1's datasets.

A ranking question orders the fields that hold replies, a label question names the better one, a
text question holds a written reply or a comment. Suggestions come from models, so they are left
alone; so are responses that were not submitted.

    nested (2.x)   {"fields": {...}, "responses": {"ranking": [{"value": [...], "user_id": ...}]}}
    flat (2.x)     {"prompt": ..., "ranking.responses": [...], "ranking.responses.users": [...],
                    "ranking.responses.status": [...]}
    flat (1.x)     {"prompt": ..., "ranking": [{"user_id": ..., "value": ..., "status": ...}]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange.examples import (
    Example,
    Found,
    Messages,
    RatedReplies,
    Written,
    dense,
    messages_of,
)
from storage.records import Message

ORIGIN = "argilla"
PROMPT_FIELDS = (
    *("prompt", "instruction", "question", "query", "input", "user", "text"),
    *("chat", "conversation", "messages", "dialogue"),
)
SYSTEM_FIELDS = ("system", "system_prompt")
_CONTEXT_FIELDS = ("context", "input")
_TIES = ("tie", "equal", "same", "both", "draw")
_COMMENTS = re.compile("comment|rationale|explanation|feedback|reason|note|why|critique")
_RESPONSES = ".responses"


@dataclass(frozen=True)
class _Response:
    question: str
    value: Any
    rater: str


def is_argilla(row: Mapping[str, Any]) -> bool:
    """Whether the record is Argilla's."""
    nested = isinstance(row.get("fields"), dict) and "responses" in row
    flat = any(name.endswith(_RESPONSES) for name in row)
    return nested or flat or any(_answers_of_version_1(value) for value in row.values())


def found_argilla(row: Mapping[str, Any]) -> Found:
    """The rankings and written replies of a record, by rater.

    Raises:
        BadInputError: nothing in it orders or writes replies.
    """
    fields = row["fields"] if isinstance(row.get("fields"), dict) else row
    messages, prompt_field = _conversation(fields)
    by_rater: dict[str, list[_Response]] = {}
    for response in _responses(row):
        by_rater.setdefault(response.rater, []).append(response)
    examples: list[Example] = []
    for rater, responses in by_rater.items():
        examples += _of_rater(rater, responses, fields, messages, prompt_field)
    if not examples:
        raise BadInputError(
            "no submitted response orders replies or writes one; needed is a ranking question "
            "over fields, a label question that names a field, or a text question"
        )
    return Found(ORIGIN, examples)


def _of_rater(
    rater: str,
    responses: list[_Response],
    fields: Mapping[str, Any],
    messages: Messages,
    prompt_field: str,
) -> Iterator[Example]:
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    texts = {
        name: value
        for name, value in texts.items()
        if name not in (prompt_field, *SYSTEM_FIELDS) and value.strip()
    }
    comments = [one.value for one in responses if _is_comment(one)]
    for response in responses:
        order = _order(response.value, texts)
        if order:
            names = [name for name in texts if name in order]  # the same for all raters
            yield RatedReplies(
                messages,
                tuple(texts[name] for name in names),
                dense([-order[name] for name in names]),
                comment="\n".join(comments),
                rater=rater,
            )
        elif (
            _is_text(response)
            and not _is_comment(response)
            and _field(response.value, texts) is None
        ):
            yield Written(messages, response.value, rater=rater)


def _is_text(response: _Response) -> bool:
    return isinstance(response.value, str) and bool(response.value.strip())


def _is_comment(response: _Response) -> bool:
    return _is_text(response) and bool(_COMMENTS.search(response.question.lower()))


def _order(value: Any, texts: Mapping[str, str]) -> dict[str, int]:
    """Ranks by field; empty where the response orders nothing."""
    if isinstance(value, dict) and isinstance(value.get("rank"), list):
        value = [
            {"rank": rank, "value": name}
            for rank, name in zip(value["rank"], value.get("value") or [], strict=False)
        ]
    if isinstance(value, str):
        return _better_of_two(value, texts)
    if not isinstance(value, list) or len(value) < 2:
        return {}
    order: dict[str, int] = {}
    for place, one in enumerate(value, start=1):
        named, rank = one, place
        if isinstance(one, dict):
            named, rank = one.get("value"), one.get("rank") or place
        name = _field(named, texts)
        if name is None or isinstance(rank, bool) or not isinstance(rank, int):
            return {}
        order[name] = rank
    return order if len(order) == len(value) else {}


def _better_of_two(value: str, texts: Mapping[str, str]) -> dict[str, int]:
    replies = reply_fields(texts)
    if len(replies) != 2:
        return {}
    if _plain(value) in _TIES:
        return dict.fromkeys(replies, 1)
    best = _field(value, {name: texts[name] for name in replies})
    return {} if best is None else {name: 1 if name == best else 2 for name in replies}


def reply_fields(texts: Mapping[str, str]) -> list[str]:
    """The fields whose names differ in a number or letter at the end only: response1, response2."""
    by_stem: dict[str, list[str]] = {}
    for name in texts:
        stem = re.sub(r"([0-9]+|(?<=[_-])[a-z])$", "", name.lower())
        if stem != name.lower():
            by_stem.setdefault(stem, []).append(name)
    groups = sorted(by_stem.values(), key=len)
    return sorted(groups[-1]) if groups and len(groups[-1]) > 1 else []


def _field(named: Any, texts: Mapping[str, str]) -> str | None:
    """The field that a value names: alike but for case and signs, or by its number."""
    wanted = _plain(str(named))
    if not wanted:
        return None
    alike = [name for name in texts if _plain(name) == wanted]
    number = re.search(r"[0-9]+$", wanted)
    if not alike and number:
        alike = [name for name in texts if re.search(rf"(?<![0-9]){number[0]}$", _plain(name))]
    return alike[0] if len(alike) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _conversation(fields: Mapping[str, Any]) -> tuple[Messages, str]:
    """The conversation before the replies, and the field that holds it."""
    for name in (*PROMPT_FIELDS, *_CONTEXT_FIELDS):
        value = fields.get(name)
        if isinstance(value, list):
            return messages_of(value), name
        if isinstance(value, str) and value.strip():
            system = next((str(fields[one]) for one in SYSTEM_FIELDS if fields.get(one)), "")
            before = (Message("system", system),) if system.strip() else ()
            return (*before, Message("user", value)), name
    known = ", ".join(PROMPT_FIELDS)
    raise BadInputError(f"none of its fields is a prompt; rename the field to one of {known}")


def _responses(row: Mapping[str, Any]) -> Iterator[_Response]:
    nested = row.get("responses")
    if isinstance(nested, dict):
        for question, answers in nested.items():
            yield from _answers(question, answers)
    for name, value in row.items():
        if name.endswith(_RESPONSES):
            yield from _flat(row, name)
        elif _answers_of_version_1(value):
            yield from _answers(name, value)


def _answers(question: str, answers: Any) -> Iterator[_Response]:
    if isinstance(answers, dict):  # a sequence of structs in a dataset: columns instead of rows
        names = list(answers)
        answers = [
            dict(zip(names, values, strict=True))
            for values in zip(*(answers[name] or [] for name in names), strict=False)
        ]
    for answer in answers or []:
        if isinstance(answer, dict) and answer.get("status") in (None, "submitted"):
            yield _Response(question, answer.get("value"), str(answer.get("user_id") or ""))


def _flat(row: Mapping[str, Any], name: str) -> Iterator[_Response]:
    values = row[name] or []
    users = row.get(f"{name}.users") or [""] * len(values)
    states = row.get(f"{name}.status") or ["submitted"] * len(values)
    for value, user, status in zip(values, users, states, strict=False):
        if status in (None, "submitted"):
            yield _Response(name.removesuffix(_RESPONSES), value, str(user or ""))


def _answers_of_version_1(value: Any) -> bool:
    if isinstance(value, dict):
        return {"user_id", "value", "status"} <= value.keys()
    return bool(
        isinstance(value, list)
        and value
        and isinstance(value[0], dict)
        and {"user_id", "value", "status"} <= value[0].keys()
    )
