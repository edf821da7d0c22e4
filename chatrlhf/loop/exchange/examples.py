"""What a record of another program comes to, before it becomes rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from chatrlhf.errors import BadInputError
from storage.archive import (
    ArchivedConversation,
    ArchivedDemonstration,
    ArchivedLabel,
    ArchivedRank,
    ArchivedRanking,
    ArchivedReply,
    ArchivedTurn,
)
from storage.records import Message
from storage.replies import IMPORTED

Messages = tuple[Message, ...]
Role = Literal["system", "user", "assistant"]
_ROLES = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant"}
_TITLE_LENGTH = 80


@dataclass(frozen=True)
class RatedReplies:
    """Replies to one conversation, and what a rater made of them.

    ``ranks`` is empty where they are only labelled; ``labels`` holds (place of the reply, label,
    whether it is true). ``rater`` is empty where the source does not tell.
    """

    messages: Messages
    replies: tuple[str, ...]
    ranks: tuple[int, ...] = ()
    labels: tuple[tuple[int, str, bool], ...] = ()
    comment: str = ""
    rater: str = ""
    created_at: str = ""


@dataclass(frozen=True)
class Written:
    """A reply that somebody wrote."""

    messages: Messages
    text: str
    rater: str = ""
    created_at: str = ""


@dataclass(frozen=True)
class PoolPrompt:
    """A prompt without any reply, for the pool."""

    messages: Messages


Example = RatedReplies | Written | PoolPrompt


@dataclass(frozen=True)
class Found:
    """The examples of a record, and the name of its format."""

    origin: str
    examples: Sequence[Example] = field(default=())


def messages_of(value: object) -> Messages:
    """A list of messages with role and content, as OpenAI's and others write them.

    Raises:
        BadInputError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadInputError("messages must be a list of objects with role and content")
    return tuple(_message(one) for one in value)


def _message(value: Mapping[str, Any]) -> Message:
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    role = _ROLES.get(str(role), role)
    if isinstance(content, list):  # parts, of which only text is of use here
        content = "".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    if not isinstance(content, str) or role not in ("system", "user", "assistant"):
        raise BadInputError(
            f"a message has role {role!r}; it must be system, user or assistant, with a text as "
            "its content"
        )
    return Message(cast(Role, role), content)


def dense(scores: Sequence[float]) -> tuple[int, ...]:
    """Ranks of scores, the highest first, equal ones tied."""
    places = {score: place for place, score in enumerate(sorted(set(scores), reverse=True), 1)}
    return tuple(places[score] for score in scores)


def as_conversation(
    example: RatedReplies, origin: str, owner: str, rater: str, moment: str
) -> ArchivedConversation:
    """The rows of rated replies: a conversation whose last turn has them.

    Raters of one source meet on the same replies, so their opinions do not decide which
    conversation it is; without a rater they do, as two such records are two opinions.
    """
    said = None if example.rater else [example.ranks, example.labels, example.comment]
    system, pairs, question = _paired(example.messages)
    moment = example.created_at or moment
    turns: list[ArchivedTurn] = []
    parent: int | None = None
    for number, (text, reply) in enumerate(pairs, start=1):
        made = _reply(number, 0, reply, moment)
        turns.append(ArchivedTurn(number, parent, text, moment, replies=(made,)))
        parent = number
    first = len(turns) + 1
    replies = [
        dataclasses.replace(
            _reply(first + place, place, text, moment),
            labels=tuple(
                ArchivedLabel(label, value, rater, moment)
                for where, label, value in example.labels
                if where == place
            ),
        )
        for place, text in enumerate(example.replies)
    ]
    ranks = tuple(
        ArchivedRank(reply.id, rank)
        for reply, rank in zip(replies, example.ranks, strict=bool(example.ranks))
    )
    ranking = ArchivedRanking(1, rater, ranks, moment, comment=example.comment)
    rankings = (ranking,) if ranks else ()
    turns.append(
        ArchivedTurn(first, parent, question, moment, replies=tuple(replies), rankings=rankings)
    )
    return ArchivedConversation(
        id=0,
        person=owner,
        title=" ".join(question.split())[:_TITLE_LENGTH],
        system_prompt=system,
        created_at=moment,
        origin=origin,
        origin_key=_key([_plain(example.messages), example.replies, said]),
        turns=tuple(turns),
    )


def as_demonstration(example: Written, rater: str, moment: str) -> ArchivedDemonstration:
    """The row of a written reply."""
    _paired(example.messages)
    created_at = example.created_at or moment
    return ArchivedDemonstration(0, rater, example.messages, example.text, created_at)


def _paired(messages: Messages) -> tuple[str, list[tuple[str, str]], str]:
    """System prompt, (prompt, reply) pairs, and the last prompt; BadInputError if it is no chat."""
    system = messages[0].content if messages and messages[0].role == "system" else ""
    rest = messages[1:] if messages and messages[0].role == "system" else messages
    wanted = ["user", "assistant"] * (len(rest) // 2) + ["user"]
    if [message.role for message in rest] != wanted:
        found = ", ".join(message.role for message in rest[:6]) or "nothing"
        raise BadInputError(
            f"the conversation goes {found}; it must go user, assistant, user ... and end with the "
            "user's message"
        )
    texts = [message.content for message in rest]
    return system, list(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1]


def _reply(identity: int, position: int, text: str, moment: str) -> ArchivedReply:
    return ArchivedReply(
        id=identity,
        position=position,
        text=text,
        version=IMPORTED,
        seed=0,
        sampling={},
        state="complete",
        finish_reason="stop",
        slot_type=IMPORTED,
        created_at=moment,
    )


def _plain(messages: Messages) -> list[list[str]]:
    return [[message.role, message.content] for message in messages]


def _key(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
