r"""Human preferences from files: pairs of replies to one conversation, one better than the other.

A file is JSON Lines (``.jsonl``, ``.jsonl.gz``) or Parquet (``.parquet``, needs pyarrow); a folder
stands for all such files in it. A row has ``chosen`` and ``rejected``, in one of these forms:

    transcripts      "\n\nHuman: hi\n\nAssistant: hello" (as in Anthropic's hh-rlhf)
    messages         [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    with a prompt    ``prompt`` (text or messages) and ``chosen``, ``rejected`` (text or messages)

Pairs are split by how the conversation opens, so that neither a prompt nor another stage of the
same conversation is both fitted and measured.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.errors import BadInputError
from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward_data import RankingExample

HELD_OUT_ONE_IN = 4
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_TURN = re.compile(r"\n\n(Human|Assistant):", re.MULTILINE)
_ROLES = {"Human": "user", "Assistant": "assistant"}

Messages = tuple[ChatMessage, ...]


@dataclass(frozen=True)
class HumanPair:
    """Two replies to one conversation; people preferred ``chosen``."""

    messages: Messages
    chosen: str
    rejected: str

    @property
    def is_held_out(self) -> bool:
        """By a hash of the conversation's first message: the same in every run."""
        digest = hashlib.sha256(self.messages[0].content.encode()).hexdigest()
        return int(digest[:15], 16) % HELD_OUT_ONE_IN == 0


@dataclass(frozen=True)
class PairSplit:
    """Pairs as rankings of two replies, and how many rows were of no use."""

    train: tuple[RankingExample, ...]
    held_out: tuple[RankingExample, ...]
    unusable: int
    too_long: int


def split_pairs(
    pairs: Sequence[HumanPair | None], chat_format: ChatFormat, max_tokens: int
) -> PairSplit:
    """Encode the pairs; those that do not fit ``max_tokens`` are left out, not cut."""
    train: list[RankingExample] = []
    held_out: list[RankingExample] = []
    unusable = too_long = 0
    for pair in pairs:
        example = None if pair is None else _example(pair, chat_format)
        if pair is None or example is None:
            unusable += 1
        elif example.longest > max_tokens:
            too_long += 1
        else:
            (held_out if pair.is_held_out else train).append(example)
    return PairSplit(tuple(train), tuple(held_out), unusable, too_long)


def read_pairs(path: Path) -> list[HumanPair | None]:
    """All rows of a file or folder; None for a row that compares nothing.

    That is a row whose replies are equal or empty, or belong to different conversations.

    Raises:
        BadInputError: there is no such file, or a row has none of the forms.
    """
    found: list[HumanPair | None] = []
    for file in _files(path):
        for number, row in enumerate(_rows(file), start=1):
            try:
                found.append(_pair(row))
            except (KeyError, TypeError, ValueError) as error:
                raise BadInputError(
                    f"{file}, row {number}: {error!r}. A row needs chosen and rejected as "
                    "transcripts (Human: ..., Assistant: ...), as messages, or beside a prompt."
                ) from error
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
    else:
        files = [path] if path.is_file() and path.name.endswith(SUFFIXES) else []
    if not files:
        raise BadInputError(f"{path}: no file ending in {', '.join(SUFFIXES)}. Name one.")
    return files


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise BadInputError(
                f"{file}: Parquet needs pyarrow. Run: pip install 'chatrlhf[bench]'"
            ) from error
        yield from parquet.read_table(file).to_pylist()
        return
    payload = file.read_bytes()
    text = (gzip.decompress(payload) if file.suffix == ".gz" else payload).decode("utf-8")
    # Only \n ends a row: JSON strings may hold the other line breaks that splitlines knows.
    yield from (json.loads(line) for line in text.split("\n") if line.strip())


def _pair(row: dict[str, Any]) -> HumanPair | None:
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" in row:
        prompt = _messages(row["prompt"], alone="user")
        if prompt[-1].role == "assistant" and not prompt[-1].content:
            prompt = prompt[:-1]  # a transcript that ends in "Assistant:"
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


def _messages(value: object, alone: str | None = None) -> Messages:
    """Messages of a transcript or a list; a text without turns is one message of ``alone``."""
    if isinstance(value, list):
        return tuple(ChatMessage(str(one["role"]), str(one["content"])) for one in value)
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is neither text nor messages")
    parts = _TURN.split(value if value.startswith("\n\n") else f"\n\n{value}")
    if len(parts) == 1 or parts[0].strip():
        if alone is None:
            raise ValueError("a text that does not begin with 'Human:' needs a prompt beside it")
        return (ChatMessage(alone, value),)
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return tuple(ChatMessage(_ROLES[name], text.strip()) for name, text in turns)


def _example(pair: HumanPair, chat_format: ChatFormat) -> RankingExample | None:
    """The pair as a ranking of two; None where the chat template refuses the conversation."""
    try:
        prompt = chat_format.encode_prompt(pair.messages)
        replies = [chat_format.encode_reply(text) for text in (pair.chosen, pair.rejected)]
    except BadInputError:
        return None
    return RankingExample(
        sequences=tuple(TokenSequence.of_reply(prompt, reply) for reply in replies),
        ranks=(1, 2),
        reply_lengths=tuple(len(reply) for reply in replies),
        prompt_key=pair.messages[0].content,
    )
