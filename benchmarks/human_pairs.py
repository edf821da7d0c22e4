"""Human preferences from files as examples of two replies each, split into fitted and held out.

Which files and rows are read: `chatrlhf.loop.exchange.pairs`. Pairs are split by how the
conversation opens, so that neither a prompt nor another stage of the same conversation is both
fitted and measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange.pairs import HumanPair
from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward_data import RankingExample

HELD_OUT_ONE_IN = 4


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
            (held_out if is_held_out(pair) else train).append(example)
    return PairSplit(tuple(train), tuple(held_out), unusable, too_long)


def is_held_out(pair: HumanPair) -> bool:
    """By a hash of the conversation's first message: the same in every run."""
    digest = hashlib.sha256(pair.messages[0].content.encode()).hexdigest()
    return int(digest[:15], 16) % HELD_OUT_ONE_IN == 0


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
