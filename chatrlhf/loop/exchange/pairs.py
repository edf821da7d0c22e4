r"""Rows that compare or complete: hh-rlhf transcripts and the dataset formats of TRL.

    transcripts          "\n\nHuman: hi\n\nAssistant: hello" as ``chosen`` and ``rejected``
    preference           ``chosen`` and ``rejected``, as text or messages, with ``prompt`` or
                         with the prompt at the head of both
    unpaired preference  ``prompt``, ``completion`` and ``label`` (true: a good reply)
    prompt-completion    ``prompt`` and ``completion``
    language modelling   ``messages``, whose last one is the assistant's
    prompt only          ``prompt``: for the pool

A folder stands for all files of pairs in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange.examples import (
    Found,
    Messages,
    PoolPrompt,
    RatedReplies,
    Written,
    messages_of,
)
from chatrlhf.loop.exchange.record_files import opened, read_records
from storage.records import Message

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_TURN = re.compile(r"\n\n(Human|Assistant):", re.MULTILINE)
_ROLES: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class HumanPair:
    """Two replies to one conversation; people preferred ``chosen``."""

    messages: Messages
    chosen: str
    rejected: str


def read_pairs(path: Path) -> list[HumanPair | None]:
    """All rows of a file or folder; None for a row that compares nothing.

    That is a row whose replies are equal or empty, or belong to different conversations.

    Raises:
        BadInputError: there is no such file, or a row has none of the forms.
    """
    found: list[HumanPair | None] = []
    for name in _files(path):
        with opened(name) as file:
            for row in read_records(file):
                try:
                    if row.problem:
                        raise BadInputError(row.problem)
                    found.append(pair_of(row.value))
                except BadInputError as error:
                    raise BadInputError(f"{name}, row {row.line}: {error}") from error
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
    else:
        files = [path] if path.is_file() and path.name.endswith(SUFFIXES) else []
    if not files:
        raise BadInputError(f"{path}: no file ending in {', '.join(SUFFIXES)}. Name one.")
    return files


def pair_of(row: Mapping[str, Any]) -> HumanPair | None:
    """The pair of a row; None where it compares nothing.

    Raises:
        BadInputError: it has none of the forms.
    """
    try:
        return _pair(row)
    except (KeyError, TypeError, ValueError, BadInputError) as error:
        raise BadInputError(
            f"{_words(error)}. A row needs chosen and rejected as transcripts (Human: ..., "
            "Assistant: ...), as messages, or beside a prompt."
        ) from error


def _pair(row: Mapping[str, Any]) -> HumanPair | None:
    chosen, rejected = row["chosen"], row["rejected"]
    if row.get("prompt") is not None:
        prompt = _prompt(row["prompt"])
        better = (*prompt, *_messages(chosen, alone="assistant"))
        worse = (*prompt, *_messages(rejected, alone="assistant"))
    else:
        better, worse = _messages(chosen), _messages(rejected)
    if any(len(one) < 2 or one[-1].role != "assistant" for one in (better, worse)):
        raise ValueError("a reply must be the last message, after at least one other")
    same_context = better[:-1] == worse[:-1]
    replies = better[-1].content, worse[-1].content
    if not same_context or replies[0] == replies[1] or not all(text.strip() for text in replies):
        return None
    return HumanPair(better[:-1], *replies)


def found_pair(row: Mapping[str, Any]) -> Found:
    """A preference, of TRL or in transcripts."""
    transcripts = isinstance(row["chosen"], str) and row.get("prompt") is None
    pair = pair_of(row)
    if pair is None:
        raise BadInputError(
            "it compares nothing: its replies are equal or empty, or belong to different "
            "conversations"
        )
    example = RatedReplies(pair.messages, (pair.chosen, pair.rejected), (1, 2))
    return Found("hh-rlhf" if transcripts else "trl", [example])


def found_completion(row: Mapping[str, Any]) -> Found:
    """A prompt with its completion, which ``label`` may call good or not."""
    try:
        messages = (*_prompt(row["prompt"]), *_messages(row["completion"], alone="assistant"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{_words(error)}. A row needs prompt and completion, both as text or as messages"
        ) from error
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise BadInputError("the completion must end with the assistant's message")
    *context, reply = messages
    label = row.get("label")
    if label is None:
        return Found("trl", [Written(tuple(context), reply.content)])
    if not isinstance(label, bool):
        raise BadInputError(f"label is {label!r}; it must be true or false")
    rated = RatedReplies(tuple(context), (reply.content,), labels=((0, "bad", not label),))
    return Found("trl", [rated])


def found_messages(row: Mapping[str, Any]) -> Found:
    """A whole conversation, whose last message is a demonstration."""
    *context, reply = messages_of(row["messages"]) or (Message("user", ""),)
    if reply.role != "assistant":
        raise BadInputError("the last message must be the assistant's: it is what is learned")
    return Found("trl", [Written(tuple(context), reply.content)])


def found_prompt(row: Mapping[str, Any]) -> Found:
    """A prompt alone."""
    try:
        return Found("trl", [PoolPrompt(_prompt(row["prompt"]))])
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{_words(error)}. A prompt is a text or messages") from error


def _prompt(value: object) -> Messages:
    prompt = _messages(value, alone="user")
    if prompt and prompt[-1].role == "assistant" and not prompt[-1].content:
        return prompt[:-1]  # a transcript that ends in "Assistant:"
    return prompt


def _messages(value: object, alone: Literal["user", "assistant"] | None = None) -> Messages:
    """Messages of a transcript or a list; a text without turns is one message of ``alone``."""
    if isinstance(value, list):
        return messages_of(value)
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is neither text nor messages")
    parts = _TURN.split(value if value.startswith("\n\n") else f"\n\n{value}")
    if len(parts) == 1 or parts[0].strip():
        if alone is None:
            raise ValueError("a text that does not begin with 'Human:' needs a prompt beside it")
        return (Message(alone, value),)
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return tuple(Message(_ROLES[name], text.strip()) for name, text in turns)


def _words(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
