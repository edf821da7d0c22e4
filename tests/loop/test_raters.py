from __future__ import annotations

import random

import pytest

from chatrlhf.errors import BadInputError
from chatrlhf.loop.raters import find_rater


def rank(name: str, *replies: str, seed: int = 0) -> list[int]:
    return find_rater(name).rank(replies, random.Random(seed))


def test_shorter_ranks_by_words_and_ties_equal_lengths() -> None:
    assert rank("shorter", "one two three", "one", "a b c", "one two") == [3, 1, 3, 2]


def test_positive_ranks_the_kinder_reply_first() -> None:
    kind, plain, unkind = "I love this, wonderful!", "It is a table.", "This is horrible and bad."
    assert rank("positive", plain, unkind, kind) == [2, 3, 1]


def test_question_wants_a_question_back_and_then_fewer_words() -> None:
    assert rank("question", "Yes.", "Which one do you mean?", "Which one?", "No, not so") == [
        3,
        2,
        1,
        4,
    ]


@pytest.mark.parametrize("name", ["shorter", "positive", "question"])
def test_an_empty_reply_is_the_worst_for_everybody(name: str) -> None:
    assert rank(name, " \n", "This is a horrible and bad table, " * 20) == [2, 1]


def test_a_noisy_rater_errs_at_its_rate_and_keeps_its_true_score() -> None:
    rater = find_rater("noisy:shorter:0.2")
    generator = random.Random(5)
    wrong = sum(rater.rank(["one", "one two"], generator) == [2, 1] for _ in range(4000))
    # Standard error of a share of 0.2 over 4000 is 0.0063.
    assert wrong / 4000 == pytest.approx(0.2, abs=0.026)
    assert rater.score("one two") == -2.0


def test_a_noisy_rater_repeats_with_its_seed() -> None:
    replies = ["one", "one two", "one two three", "four"]
    ranked = [rank("noisy:shorter:0.5", *replies, seed=3) for _ in range(2)]
    assert ranked[0] == ranked[1]
    # Equals stay equal whatever else is confused.
    assert ranked[0][0] == ranked[0][3]


def test_a_noisy_rater_that_never_errs_is_the_plain_one() -> None:
    replies = ["a b", "a", "a b c"]
    assert rank("noisy:shorter:0", *replies) == rank("shorter", *replies)


@pytest.mark.parametrize("name", ["longer", "", "noisy:longer:0.1", "noisy:shorter", "noisy"])
def test_an_unknown_rater_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(BadInputError, match="shorter, positive, question, noisy:<name>:"):
        find_rater(name)


@pytest.mark.parametrize("rate", ["0.6", "-0.1", "often", "nan"])
def test_a_wrong_flip_rate_is_refused(rate: str) -> None:
    with pytest.raises(BadInputError, match=r"0 to 0\.5"):
        find_rater(f"noisy:shorter:{rate}")
