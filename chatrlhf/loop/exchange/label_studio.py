"""Tasks of Label Studio, exported as JSON: what each annotator ranked, preferred or wrote.

ranker    {"ranker": {"rank": ["id 2", "id 1"]}}   an order of the items of a list; with
                                                   buckets, each bucket is a label
pairwise  {"selected": "left"}                     the better of answer1 and answer2
textarea  {"text": ["..."]}                        a written reply
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange.argilla import PROMPT_FIELDS, SYSTEM_FIELDS, reply_fields
from chatrlhf.loop.exchange.examples import (
    Example,
    Found,
    Messages,
    RatedReplies,
    Written,
    messages_of,
)
from storage.records import Message

ORIGIN = "label-studio"
_UNSORTED = "_"  # the list from which items are moved to buckets


def is_label_studio(row: Mapping[str, Any]) -> bool:
    """Whether the record is a task with annotations."""
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)


def is_minimal(row: Mapping[str, Any]) -> bool:
    """Whether it is of the export JSON-MIN, which leaves out what each result is."""
    return {"annotation_id", "annotator"} <= row.keys()


def found_label_studio(row: Mapping[str, Any]) -> Found:
    """What the annotators of a task said.

    Raises:
        BadInputError: no annotation orders, prefers or writes replies.
    """
    data = row["data"]
    messages = _conversation(data)
    examples: list[Example] = []
    for annotation in row["annotations"]:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        rater, moment = _annotator(annotation), _moment(annotation)
        for result in annotation.get("result") or []:
            if isinstance(result, dict) and isinstance(result.get("value"), dict):
                examples += _of_result(result["value"], data, messages, rater, moment)
    if not examples:
        raise BadInputError(
            "no annotation of the task orders, prefers or writes replies; needed is a Ranker, a "
            "Pairwise or a TextArea result"
        )
    return Found(ORIGIN, examples)


def _of_result(
    value: Mapping[str, Any], data: Mapping[str, Any], messages: Messages, rater: str, moment: str
) -> Iterator[Example]:
    if isinstance(value.get("ranker"), dict):
        yield _ranked(value["ranker"], _items(data), messages, rater, moment)
    elif value.get("selected") in ("left", "right"):
        replies = _two_replies(data)
        ranks = (1, 2) if value["selected"] == "left" else (2, 1)
        yield RatedReplies(messages, replies, ranks, rater=rater, created_at=moment)
    elif isinstance(value.get("text"), list | str):
        texts = [value["text"]] if isinstance(value["text"], str) else value["text"]
        for text in texts:
            if isinstance(text, str) and text.strip():
                yield Written(messages, text, rater=rater, created_at=moment)


def _ranked(
    buckets: Mapping[str, Any], items: dict[str, str], messages: Messages, rater: str, moment: str
) -> RatedReplies:
    named = {name: [str(one) for one in ids or []] for name, ids in buckets.items()}
    strange = [one for ids in named.values() for one in ids if one not in items]
    if strange:
        raise BadInputError(f"the result names item {strange[0]!r}, which the task does not have")
    replies = tuple(items.values())
    if len(named) == 1 and _UNSORTED not in named:
        order = next(iter(named.values()))
        if set(order) != set(items) or len(order) != len(items):
            raise BadInputError("the result does not order all items of the task")
        ranks = tuple(order.index(identity) + 1 for identity in items)
        return RatedReplies(messages, replies, ranks, rater=rater, created_at=moment)
    labels = tuple(
        (place, _label(name), identity in ids)
        for name, ids in named.items()
        if name != _UNSORTED
        for place, identity in enumerate(items)
    )
    return RatedReplies(messages, replies, labels=labels, rater=rater, created_at=moment)


def _items(data: Mapping[str, Any]) -> dict[str, str]:
    """Texts by id of the task's list."""
    for value in data.values():
        if isinstance(value, list) and value and all(_is_item(one) for one in value):
            return {str(one["id"]): str(one.get("body") or one.get("html")) for one in value}
    raise BadInputError("the task has no list of items with id and body")


def _is_item(value: Any) -> bool:
    return (
        isinstance(value, dict) and "id" in value and bool(value.get("body") or value.get("html"))
    )


def _two_replies(data: Mapping[str, Any]) -> tuple[str, ...]:
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    names = reply_fields(texts)
    if len(names) != 2:
        raise BadInputError(
            "a pairwise result needs two texts whose names differ in a number at the end, such as "
            "answer1 and answer2"
        )
    return tuple(texts[name] for name in names)


def _conversation(data: Mapping[str, Any]) -> Messages:
    for name in PROMPT_FIELDS:
        value = data.get(name)
        if isinstance(value, str) and value.strip():
            system = next((str(data[one]) for one in SYSTEM_FIELDS if data.get(one)), "")
            before = (Message("system", system),) if system.strip() else ()
            return (*before, Message("user", value))
        if isinstance(value, list) and value and not any(_is_item(one) for one in value):
            return messages_of(value)
    known = ", ".join(PROMPT_FIELDS)
    raise BadInputError(f"the task's data has no prompt; rename its field to one of {known}")


def _annotator(annotation: Mapping[str, Any]) -> str:
    """An id, an address, or an object with both."""
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return "" if who is None else str(who)


def _moment(annotation: Mapping[str, Any]) -> str:
    when = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?(Z|\+00:00)$", when)
    return f"{found[1]}{(found[2] or '.000')[:4].ljust(4, '0')}Z" if found else ""


def _label(bucket: str) -> str:
    """The name of a bucket as a label."""
    name = re.sub("[^a-z0-9_-]+", "-", bucket.lower()).strip("-")
    return (name if name[:1].isalpha() else f"b-{name}")[:40]
