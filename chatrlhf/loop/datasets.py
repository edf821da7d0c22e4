"""Rows become examples: rankings and labels for the reward, demonstrations for SFT, prompts.

Rankings and labels carry a hash of their prompt, so that no prompt is both fitted and measured.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from chatrlhf.loop.opinions import agreement, label_shares, orders
from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.models.scored_reply import context_and_reply
from chatrlhf.settings import Settings
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward_data import LabelExample, RankingExample
from storage import demonstrations, labels, prompts, rankings
from storage.database import Database
from storage.records import LabelledReply, Message, RankedTurn

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class RoundData:
    """Everything a round reads from the database, as tokens.

    ``agreement``: of the pairs that two people both ordered, how many alike, and how many.
    """

    rankings: tuple[RankingExample, ...]
    labels: dict[str, tuple[LabelExample, ...]]
    agreement: tuple[int, int]
    demonstrations: tuple[TokenSequence, ...]
    prompts: tuple[Tokens, ...]
    gate_prompts: tuple[Tokens, ...]
    ranked_prompts: int
    last_ranking_id: int
    dataset_hash: str
    questions: dict[Tokens, str]  # the last message of each prompt


def load_round_data(
    db: Database, chat_format: ChatFormat, settings: Settings, up_to_ranking_id: int
) -> RoundData:
    """Read what a round trains on.

    Rankings that tie all replies, or call all bad, order nothing: they are no ranking examples,
    but the latter label their replies. Rankings newer than ``up_to_ranking_id`` are left out, so
    that a resumed round sees what it saw before.
    """
    ranked = rankings.ranked_turns(db, up_to_ranking_id)
    turns = [turn for turn in ranked if orders(turn)]
    labelled = labels.labelled_replies(db)
    shares = label_shares(ranked, labelled)
    longest = settings.reward.max_tokens
    written = demonstrations.list_demonstrations(db)
    longest_prompt = longest - settings.ppo.max_new_tokens
    chat = [turn.messages for turn in turns]
    pool = [_pool_messages(p.system_prompt, p.text) for p in prompts.list_prompts(db, "train")]
    gate = [_pool_messages(p.system_prompt, p.text) for p in prompts.list_prompts(db, "held_out")]
    questions = _encode(chat_format, [*chat, *pool], longest_prompt)
    unseen = _encode(chat_format, gate, longest_prompt)
    return RoundData(
        rankings=_ranking_examples(turns, chat_format, longest),
        labels=_label_examples(shares, _replies(ranked, labelled), chat_format, longest),
        agreement=agreement(turns),
        demonstrations=tuple(
            _demonstration(chat_format, [*one.messages, Message("assistant", one.text)])
            for one in written
        ),
        prompts=tuple(questions),
        gate_prompts=tuple(unseen)[: settings.round.gate_prompts],
        ranked_prompts=len({prompt_key(turn.messages) for turn in turns}),
        last_ranking_id=up_to_ranking_id,
        dataset_hash=_dataset_hash(turns, shares, [one.text for one in written]),
        questions={**unseen, **questions},
    )


def prompt_key(messages: Sequence[Message]) -> str:
    """A hash of the whole context of a reply."""
    text = json.dumps([[message.role, message.content] for message in messages])
    return hashlib.sha256(text.encode()).hexdigest()


def draw_prompts(prompts: Sequence[Tokens], count: int, seed: str) -> list[Tokens]:
    """``count`` prompts, each at most once as long as there are enough."""
    rounds, rest = divmod(count, len(prompts))
    return list(prompts) * rounds + random.Random(seed).sample(list(prompts), rest)


def pool_prompts() -> list[tuple[str, str, tuple[str, ...]]]:
    """The prompts that ship with the program, as (text, system prompt, tags)."""
    path = files("chatrlhf") / "data" / "prompts.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row.get("system_prompt", ""), tuple(row["tags"])) for row in rows]


@dataclass(frozen=True)
class _Reply:
    """A reply with its context; ``finished``: it ended by itself."""

    messages: tuple[Message, ...]
    text: str
    finished: bool


def _replies(ranked: Sequence[RankedTurn], labelled: Sequence[LabelledReply]) -> dict[int, _Reply]:
    """Every ranked or labelled reply by its id."""
    found = {one.reply_id: _Reply(one.messages, one.text, one.finished) for one in labelled}
    for turn in ranked:
        for reply_id, text, finished in zip(
            turn.reply_ids, turn.replies, turn.finished, strict=True
        ):
            found[reply_id] = _Reply(turn.messages, text, finished)
    return found


def _ranking_examples(
    turns: Sequence[RankedTurn], chat_format: ChatFormat, longest: int
) -> tuple[RankingExample, ...]:
    times = Counter(turn.turn_id for turn in turns)
    found = []
    for turn in turns:
        replies = [
            _Reply(turn.messages, text, finished)
            for text, finished in zip(turn.replies, turn.finished, strict=True)
        ]
        sequences = [_sequence(reply, chat_format, longest) for reply in replies]
        found.append(
            RankingExample(
                sequences=tuple(sequences),
                ranks=turn.ranks,
                reply_lengths=tuple(sum(one.is_response) for one in sequences),
                prompt_key=prompt_key(turn.messages),
                strength=turn.strength,
                weight=1.0 / times[turn.turn_id],
                ranking_id=turn.ranking_id,
            )
        )
    return tuple(found)


def _label_examples(
    shares: Mapping[str, Mapping[int, float]],
    replies: Mapping[int, _Reply],
    chat_format: ChatFormat,
    longest: int,
) -> dict[str, tuple[LabelExample, ...]]:
    return {
        label: tuple(
            LabelExample(
                _sequence(replies[reply_id], chat_format, longest),
                share,
                prompt_key(replies[reply_id].messages),
            )
            for reply_id, share in sorted(own.items())
        )
        for label, own in shares.items()
    }


def _sequence(reply: _Reply, chat_format: ChatFormat, longest: int) -> TokenSequence:
    context, spoken = context_and_reply(
        chat_format, reply.messages, reply.text, finished=reply.finished, longest=longest
    )
    return TokenSequence.of_reply(context, spoken)


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


def _dataset_hash(
    turns: Sequence[RankedTurn],
    shares: Mapping[str, Mapping[int, float]],
    written: Sequence[str],
) -> str:
    rows = [[turn.ranking_id, list(turn.ranks), list(turn.replies)] for turn in turns]
    said = [[label, sorted(own.items())] for label, own in shares.items()]
    return hashlib.sha256(json.dumps([rows, said, list(written)]).encode()).hexdigest()
