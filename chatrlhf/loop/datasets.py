"""Rows become examples: rankings for the reward model, demonstrations for SFT, prompts for PPO.

Rankings carry a hash of their prompt, so that no prompt is both fitted and measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.settings import Settings
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward import RankingExample
from storage import demonstrations, prompts, rankings
from storage.database import Database
from storage.records import Message, RankedTurn

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class RoundData:
    """Everything a round reads from the database, as tokens."""

    rankings: tuple[RankingExample, ...]
    demonstrations: tuple[TokenSequence, ...]
    prompts: tuple[Tokens, ...]
    gate_prompts: tuple[Tokens, ...]
    ranked_prompts: int
    last_ranking_id: int
    dataset_hash: str
    questions: dict[Tokens, str]  # the last message of each prompt, to be shown


def load_round_data(
    db: Database, chat_format: ChatFormat, settings: Settings, up_to_ranking_id: int
) -> RoundData:
    """Read what a round trains on.

    Rankings that tie all replies order nothing and are left out; so are rankings newer than
    ``up_to_ranking_id``, so that a resumed round sees what it saw before.
    """
    turns = [turn for turn in rankings.ranked_turns(db, up_to_ranking_id) if _orders(turn)]
    examples = [_example(turn, chat_format, settings.reward.max_tokens) for turn in turns]
    written = demonstrations.list_demonstrations(db)
    longest_prompt = settings.reward.max_tokens - settings.ppo.max_new_tokens
    chat = [turn.messages for turn in turns]
    pool = [_pool_messages(p.system_prompt, p.text) for p in prompts.list_prompts(db, "train")]
    gate = [_pool_messages(p.system_prompt, p.text) for p in prompts.list_prompts(db, "held_out")]
    questions = _encode(chat_format, [*chat, *pool], longest_prompt)
    unseen = _encode(chat_format, gate, longest_prompt)
    return RoundData(
        rankings=tuple(examples),
        demonstrations=tuple(
            _demonstration(chat_format, [*one.messages, Message("assistant", one.text)])
            for one in written
        ),
        prompts=tuple(questions),
        gate_prompts=tuple(unseen)[: settings.round.gate_prompts],
        ranked_prompts=len({prompt_key(turn.messages) for turn in turns}),
        last_ranking_id=up_to_ranking_id,
        dataset_hash=_dataset_hash(turns, [one.text for one in written]),
        questions=questions,
    )


def prompt_key(messages: Sequence[Message]) -> str:
    """A hash of the whole context of a reply."""
    text = json.dumps([[message.role, message.content] for message in messages])
    return hashlib.sha256(text.encode()).hexdigest()


def pool_prompts() -> list[tuple[str, str, tuple[str, ...]]]:
    """The prompts that ship with the program, as (text, system prompt, tags)."""
    path = files("chatrlhf") / "data" / "prompts.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row.get("system_prompt", ""), tuple(row["tags"])) for row in rows]


def _orders(turn: RankedTurn) -> bool:
    return not turn.all_bad and len(set(turn.ranks)) > 1


def _example(turn: RankedTurn, chat_format: ChatFormat, max_tokens: int) -> RankingExample:
    prompt = chat_format.encode_prompt(turn.messages)
    sequences, lengths = [], []
    for text, finished in zip(turn.replies, turn.finished, strict=True):
        reply = chat_format.encode_reply(text)
        if not finished:
            reply = [token for token in reply if token not in chat_format.end_token_ids]
        reply = reply[-max_tokens:] or [chat_format.end_token_id]
        room = max(max_tokens - len(reply), 1)
        sequences.append(TokenSequence.of_reply(prompt[-room:], reply))
        lengths.append(len(reply))
    return RankingExample(tuple(sequences), turn.ranks, tuple(lengths), prompt_key(turn.messages))


def _demonstration(chat_format: ChatFormat, messages: Sequence[Message]) -> TokenSequence:
    token_ids, is_response = chat_format.encode_conversation(messages)
    return TokenSequence(tuple(token_ids), tuple(is_response))


def _pool_messages(system_prompt: str, text: str) -> tuple[Message, ...]:
    system = (Message("system", system_prompt),) if system_prompt else ()
    return (*system, Message("user", text))


def _encode(
    chat_format: ChatFormat, conversations: Iterable[Sequence[Message]], longest: int
) -> dict[Tokens, str]:
    """Prompts as tokens, once each, with their last message; too long ones are left out."""
    found: dict[Tokens, str] = {}
    for messages in conversations:
        tokens = tuple(chat_format.encode_prompt(messages))
        if len(tokens) <= longest:
            found.setdefault(tokens, messages[-1].content)
    return found


def _dataset_hash(turns: Sequence[RankedTurn], written: Sequence[str]) -> str:
    rows = [[turn.ranking_id, list(turn.ranks), list(turn.replies)] for turn in turns]
    return hashlib.sha256(json.dumps([rows, list(written)]).encode()).hexdigest()
