"""Simulated raters: each has one plain taste, known exactly, so that learning can be measured.

A rater has a true score for a reply and ranks by it; equal scores are ties. ``noisy:<name>:
<rate>`` ranks like ``<name>`` but errs; its true score is still that of ``<name>``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from chatrlhf.errors import BadInputError

Score = Callable[[str], float]

# No taste is served by saying nothing: an empty reply is worse than any other, so a policy
# cannot win by ending at once.
_EMPTY_SHORTER = -200.0
_EMPTY = -1.0


def word_count(text: str) -> int:
    """Number of words, split at white space."""
    return len(text.split())


def shorter(text: str) -> float:
    """Minus the number of words."""
    return float(-word_count(text)) if text.strip() else _EMPTY_SHORTER


def positive(text: str) -> float:
    """VADER's compound sentiment, -1 to 1."""
    return float(_vader()(text)) if text.strip() else _EMPTY


def question(text: str) -> float:
    """1 when the reply asks something back; a thousandth off a word, so that few replies tie."""
    if not text.strip():
        return _EMPTY
    return float("?" in text) - 0.001 * word_count(text)


SCORES: dict[str, Score] = {"shorter": shorter, "positive": positive, "question": question}


@dataclass(frozen=True)
class Rater:
    """A simulated person. ``flip_rate`` is the chance to confuse two neighbours in the order."""

    name: str
    score: Score
    flip_rate: float = 0.0

    def rank(self, replies: Sequence[str], generator: random.Random) -> list[int]:
        """Dense ranks of the replies, 1 is best; equal scores share a rank.

        A noisy rater goes down the order once and swaps each group of equals with the next
        one with chance ``flip_rate``: for two replies that is the chance to err.
        """
        scores = [self.score(reply) for reply in replies]
        order = sorted(set(scores), reverse=True)
        for place in range(len(order) - 1):
            if generator.random() < self.flip_rate:
                order[place], order[place + 1] = order[place + 1], order[place]
        return [order.index(score) + 1 for score in scores]


def rater_names() -> list[str]:
    """What a person may ask for, as shown in messages."""
    return [*SCORES, "noisy:<name>:<flip rate>"]


def find_rater(name: str) -> Rater:
    """The rater called ``name``, for example ``shorter`` or ``noisy:positive:0.2``.

    Raises:
        BadInputError: there is no such rater, or the flip rate is not from 0 to 0.5.
    """
    kind, _, rest = name.partition(":")
    if kind == "noisy":
        base, _, rate_text = rest.rpartition(":")
        if base in SCORES:
            return Rater(name, SCORES[base], _flip_rate(name, rate_text))
    elif name in SCORES:
        return Rater(name, SCORES[name])
    known = ", ".join(rater_names())
    raise BadInputError(f"There is no rater {name!r}. Choose one of: {known}.")


def _flip_rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 0.5:
        raise BadInputError(
            f"{name!r}: the flip rate {text!r} must be a number from 0 to 0.5, "
            "as in noisy:shorter:0.1."
        )
    return rate


@cache
def _vader() -> Score:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()

    def compound(text: str) -> float:
        return float(analyzer.polarity_scores(text)["compound"])

    return compound
