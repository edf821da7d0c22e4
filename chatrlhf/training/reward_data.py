"""What reward models are fitted to: rankings and labels, as tokens, in folds by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatrlhf.training.batches import TokenSequence

FOLDS = 6


@dataclass(frozen=True)
class RankingExample:
    """One ranking: K replies with their context as tokens, and their ranks (1 is best).

    ``prompt_key`` names the context; rankings with one key are never split between folds.
    ``weight`` is one over the number of rankings of the same replies, so that a turn counts once
    however many people ranked it. ``ranking_id`` tells newer rankings from older ones.
    """

    sequences: tuple[TokenSequence, ...]
    ranks: tuple[int, ...]
    reply_lengths: tuple[int, ...]
    prompt_key: str = ""
    strength: int | None = None
    weight: float = 1.0
    ranking_id: int = 0

    @property
    def replies(self) -> int:
        """K."""
        return len(self.ranks)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True)
class LabelExample:
    """One reply with its context, and the share of people who say that a label is true of it."""

    sequence: TokenSequence
    target: float
    prompt_key: str = ""


Examples = Sequence[RankingExample | LabelExample]


def prompt_names(examples: Examples) -> list[str]:
    """The prompt of each example; examples without a key have each a prompt of their own."""
    return [one.prompt_key or f"#{index}" for index, one in enumerate(examples)]


def fold_of(examples: Examples) -> list[int]:
    """A fold for each example, the same for all of a prompt, balanced over prompts."""
    names = prompt_names(examples)
    folds = min(FOLDS, len(set(names)))
    number = {name: place % folds for place, name in enumerate(sorted(set(names)))}
    return [number[name] for name in names]
