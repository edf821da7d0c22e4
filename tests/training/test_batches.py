"""Batches of token sequences: every index once, masks that say what is what."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatrlhf.training.batches import TokenSequence, batches_by_length, make_batch

REPLY = TokenSequence.of_reply([1, 2], [3, 4, 5])
TURNS = TokenSequence((9, 3, 9, 4), (False, True, False, True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 500), max_size=200), st.integers(1, 9), st.integers(0, 2**32))
def test_every_index_comes_once_in_full_batches_but_for_one(lengths, size, seed):
    batches = list(batches_by_length(lengths, size, random.Random(seed)))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sum(len(batch) < size for batch in batches) <= 1


def test_batches_hold_similar_lengths_in_an_order_that_follows_the_seed():
    lengths = [number % 97 + 1 for number in range(400)]

    def padding(batches):
        return sum(
            max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches
        )

    batches = list(batches_by_length(lengths, 5, random.Random(1)))
    plain = list(range(400))
    random.Random(1).shuffle(plain)
    unsorted = [plain[at : at + 5] for at in range(0, 400, 5)]
    assert padding(batches) < 0.25 * padding(unsorted)
    assert batches == list(batches_by_length(lengths, 5, random.Random(1)))
    assert batches != list(batches_by_length(lengths, 5, random.Random(2)))


def test_a_batch_is_padded_on_the_right_and_marks_what_is_real():
    batch = make_batch([REPLY, TURNS], pad_token_id=3)
    assert batch.token_ids.tolist() == [[1, 2, 3, 4, 5], [9, 3, 9, 4, 3]]
    assert batch.is_token.tolist() == [[True] * 5, [True] * 4 + [False]]
    assert batch.is_response_token.int().tolist() == [[0, 0, 1, 1, 1], [0, 1, 0, 1, 0]]
    assert batch.last_token.tolist() == [4, 3]


def test_targets_are_predicted_one_place_before_them():
    batch = make_batch([REPLY, TURNS], pad_token_id=0)
    assert batch.targets.tolist() == [3, 4, 5, 3, 4]
    assert batch.predicts_response.int().tolist() == [[0, 1, 1, 1, 0], [1, 0, 1, 0, 0]]


def test_shortening_keeps_the_beginning():
    assert REPLY.shortened(5) is REPLY
    assert REPLY.shortened(3) == TokenSequence((1, 2, 3), (False, False, True))


@pytest.mark.parametrize(
    ("sequence", "limit"),
    [
        (REPLY, 2),  # the whole reply is cut off
        (TokenSequence.of_reply([1, 2], []), 9),
        (TokenSequence((), ()), 9),
        (TokenSequence((1, 2), (True, False)), 9),  # nothing comes before the first token
    ],
)
def test_a_sequence_without_a_response_token_to_predict_is_of_no_use(sequence, limit):
    assert sequence.shortened(limit) is None
