"""Feedback of Open WebUI: its export of feedback, and its export of chats with rated messages.

A thumb rates one reply. Its siblings, other replies to the same message, make it a ranking: thumbs
up before not rated before thumbs down. Where that orders nothing, the thumb is the label ``bad``.
Only siblings that took part count: those named in ``sibling_model_ids``, or rated themselves.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange.examples import Found, Messages, RatedReplies, dense
from storage.records import Message

ORIGIN = "open-webui"
_THUMBS = {"1": 1, "-1": -1}


def is_feedback(row: Mapping[str, Any]) -> bool:
    """Whether it is a record of the feedback export."""
    return isinstance(row.get("data"), dict) and "rating" in row["data"] and "meta" in row


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether it is a chat of the chat export."""
    return isinstance(row.get("chat"), dict) and not is_feedback(row)


def found_feedback(row: Mapping[str, Any]) -> Found:
    """The rated reply of a feedback record, with its siblings.

    Raises:
        BadInputError: there is no rating, or the record does not hold the chat.
    """
    data, meta = row["data"], row.get("meta") or {}
    thumb = _THUMBS.get(str(data.get("rating")))
    if thumb is None:
        raise BadInputError(f"the rating is {data.get('rating')!r}; it must be 1 or -1")
    messages = _messages((row.get("snapshot") or {}).get("chat") or {})
    rated = str(meta.get("message_id"))
    if rated not in messages:
        raise BadInputError(
            "the record does not hold the rated message; export the feedback with its chats "
            "(Admin, Evaluations, Feedback, Export)"
        )
    words = [data.get("reason"), data.get("comment")]
    example = _rated(
        messages,
        rated,
        {**_thumbs(messages), rated: thumb},
        set(data.get("sibling_model_ids") or ()),
        "\n".join(str(one).strip() for one in words if one and str(one).strip()),
        str(row.get("user_id") or ""),
        _moment(row.get("updated_at") or row.get("created_at")),
    )
    return Found(ORIGIN, [example])


def found_chat(row: Mapping[str, Any]) -> Found:
    """All rated replies of a chat.

    Raises:
        BadInputError: nothing in it is rated.
    """
    messages = _messages(row)
    thumbs = _thumbs(messages)
    rater, moment = str(row.get("user_id") or ""), _moment(row.get("updated_at"))
    examples = []
    parents = set()
    for rated in thumbs:
        siblings = messages[rated].get("parentId")
        if siblings not in parents:  # one ranking for all rated replies to a message
            parents.add(siblings)
            words = (messages[rated].get("annotation") or {}).get("comment")
            examples.append(
                _rated(messages, rated, thumbs, set(), str(words or "").strip(), rater, moment)
            )
    if not examples:
        raise BadInputError("no reply of the chat is rated, so there is nothing to learn from it")
    return Found(ORIGIN, examples)


def _rated(
    messages: Mapping[str, Mapping[str, Any]],
    rated: str,
    thumbs: Mapping[str, int],
    models: set[Any],
    comment: str,
    rater: str,
    moment: str,
) -> RatedReplies:
    parent = messages[rated].get("parentId")
    siblings = [
        name
        for name, message in messages.items()
        if message.get("parentId") == parent
        and message.get("role") == "assistant"
        and _text(message).strip()
        and (name in thumbs or message.get("model") in models)
    ]
    context = _path(messages, parent)
    scores = [thumbs.get(name, 0) for name in siblings]
    replies = tuple(_text(messages[name]) for name in siblings)
    if not siblings:
        raise BadInputError("the rated reply is empty")
    if len(set(scores)) > 1:
        return RatedReplies(context, replies, dense(scores), (), comment, rater, moment)
    labels = tuple((place, "bad", score < 0) for place, score in enumerate(scores))
    return RatedReplies(context, replies, (), labels, "", rater, moment)


def _messages(chat: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The messages of a chat by id, wherever this version of the program keeps them."""
    inner = chat.get("chat") if isinstance(chat.get("chat"), dict) else chat
    assert isinstance(inner, Mapping)
    history = inner.get("history") or chat.get("history") or {}
    found = history.get("messages") if isinstance(history, dict) else None
    found = found or inner.get("messages") or {}
    listed = list(found.values()) if isinstance(found, dict) else found
    return {
        str(one["id"]): one
        for one in listed
        if isinstance(one, dict) and isinstance(one.get("role"), str) and "id" in one
    }


def _thumbs(messages: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    found = {}
    for name, message in messages.items():
        thumb = _THUMBS.get(str((message.get("annotation") or {}).get("rating")))
        if thumb is not None:
            found[name] = thumb
    return found


def _path(messages: Mapping[str, Mapping[str, Any]], last: Any) -> Messages:
    """The conversation that ends with a message, from its first one."""
    return tuple(reversed(list(_upwards(messages, last))))


def _upwards(messages: Mapping[str, Mapping[str, Any]], name: Any) -> Iterator[Message]:
    for _ in range(len(messages)):  # a chat that goes round in circles ends too
        message = messages.get(str(name))
        if message is None:
            return
        role = message["role"]
        if role not in ("system", "user", "assistant"):
            raise BadInputError(f"a message has role {role!r}; it must be user or assistant")
        yield Message(role, _text(message))
        name = message.get("parentId")


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [one.get("text") for one in content if isinstance(one, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _moment(seconds: Any) -> str:
    """Seconds since 1970 as the program writes times; empty where there are none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return ""
    try:
        found = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, OSError, ValueError):
        return ""
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
