"""Human pairs as examples: the split, and what does not fit."""

from __future__ import annotations

import pytest
from human_pairs import split_pairs
from tiny_model import write_tiny_model

from chatrlhf.loop.exchange.pairs import HumanPair
from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.models.weights import load_tokenizer
from storage.records import Message


@pytest.fixture(scope="module")
def chat_format(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("pairs"), "gemma3")
    return ChatFormat(load_tokenizer(folder))


def test_stages_of_one_conversation_stay_on_one_side(chat_format):
    pairs = []
    for number in range(80):
        opening = Message("user", f"question {number}")
        later = (opening, Message("assistant", "well"), Message("user", "go on"))
        pairs += [HumanPair((opening,), "a", "b"), HumanPair(later, "c", "d")]
    split = split_pairs(pairs, chat_format, 500)
    train, held_out = ({one.prompt_key for one in part} for part in (split.train, split.held_out))
    assert train.isdisjoint(held_out)
    assert len(split.train) + len(split.held_out) == 160
    assert 8 <= len(held_out) <= 34  # a quarter of 80, give or take four deviations
    assert split == split_pairs(pairs, chat_format, 500)


def test_pairs_that_are_too_long_or_out_of_order_are_counted(chat_format):
    user = Message("user", "hi")
    pairs = [
        None,
        HumanPair((user,), "short", "a" * 400),
        HumanPair((user, user), "a", "b"),
        HumanPair((user,), "yes", "no"),
    ]
    split = split_pairs(pairs, chat_format, 100)
    assert (split.unusable, split.too_long) == (2, 1)
    (example,) = (*split.train, *split.held_out)
    assert example.ranks == (1, 2)
    chosen = example.sequences[0]
    prompt = chat_format.encode_prompt([user])
    assert chosen.token_ids == (*prompt, *chat_format.encode_reply("yes"))
    assert sum(chosen.is_response) == example.reply_lengths[0] == len(chosen) - len(prompt)
