"""May this reward model be trusted, and may this version go live?

Each gate says in words what it found. A failed gate keeps the old version live.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chatrlhf.loop.intervals import Interval, bootstrap_interval, wilson_interval
from chatrlhf.loop.sentences import Sentence, joined, say
from chatrlhf.maths.ranking_loss import pair_accuracy
from chatrlhf.training.reward_data import RankingExample, prompt_names
from chatrlhf.training.reward_evaluation import RewardEvaluation
from chatrlhf.training.rollout import Rollout

MOST_REPETITION = 0.15
MOST_END_LOSS = 0.10
MOST_EMPTY = 0.05
FOLLOWS_LENGTH = 0.6
LEAST_COMPARED_PROMPTS = 6  # with fewer, even a clean sweep may be chance (1 in 32)
_NGRAM = 4


@dataclass(frozen=True)
class GateResult:
    """One gate: its name, whether it passed, and sentences with the numbers."""

    name: str
    passed: bool
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """The sentences in English."""
        return joined(self.sentences)

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> GateResult:
        """Take back what ``as_json`` gave."""
        sentences = tuple(Sentence(**sentence) for sentence in fields["sentences"])
        return cls(fields["name"], fields["passed"], sentences)


@dataclass(frozen=True)
class Comparison:
    """Two reward models on the same pairs; ``difference`` is that of their agreement."""

    new_right: int
    old_right: int
    pairs: int
    difference: Interval

    @property
    def is_worse(self) -> bool:
        """Whether the new one is surely worse."""
        return self.difference.high < 0.0

    def sentences(self) -> tuple[Sentence, ...]:
        """The numbers in words."""
        counts = say(
            "Of the {pairs} pairs that are newer than the live version's reward model, it orders "
            "{new} as you did, the old one {old}.",
            pairs=self.pairs,
            new=self.new_right,
            old=self.old_right,
        )
        low, high = f"{self.difference.low:+.0%}", f"{self.difference.high:+.0%}"
        verdict = (
            say(
                "It is surely worse (95% interval of the difference {low} to {high}).",
                low=low,
                high=high,
            )
            if self.is_worse
            else say(
                "It is not surely worse (95% interval of the difference {low} to {high}).",
                low=low,
                high=high,
            )
        )
        return counts, verdict


@dataclass(frozen=True)
class Canary:
    """Replies of one version to the fixed gate prompts.

    ``score`` is the reward model's; ``spread`` is how far the heads of its ensemble disagree.
    """

    score: float
    reply_tokens: float
    finished: float
    repetition: float
    empty: float
    spread: float = 0.0


def reward_gate(
    evaluation: RewardEvaluation, against_incumbent: Comparison | None = None
) -> GateResult:
    """Agreement on unseen prompts: surely better than chance, not surely worse than the incumbent.

    Surely: the Wilson lower bound of the agreement lies above one half; the bootstrap interval,
    over prompts, of the difference to the incumbent does not lie below zero.
    """
    name = "reward model"
    if evaluation.pairs == 0:
        unchecked = say(
            "The reward model could not be checked: no held-out ranking orders two replies. Rank "
            "more prompts."
        )
        return GateResult(name, passed=False, sentences=(unchecked,))
    _, low, high = wilson_interval(
        evaluation.accuracy * evaluation.effective_pairs, evaluation.effective_pairs
    )
    measured = say(
        "On prompts it was not fitted on, the reward model orders {right} of {pairs} pairs as you "
        "did ({share}, 95% interval {low}-{high}; its odds are off by {error} on average).",
        right=evaluation.right,
        pairs=evaluation.pairs,
        share=f"{evaluation.accuracy:.0%}",
        low=f"{low:.0%}",
        high=f"{high:.0%}",
        error=f"{evaluation.calibration_error:.0%}",
    )
    if low <= 0.5:
        verdict = say(
            "That is not surely better than chance, so nothing is trained against it or promoted. "
            "More rankings make it better."
        )
        return GateResult(name, passed=False, sentences=(measured, verdict))
    better = say("That is better than chance.")
    if against_incumbent is None:
        return GateResult(name, passed=True, sentences=(measured, better))
    passed = not against_incumbent.is_worse
    return GateResult(name, passed, (measured, better, *against_incumbent.sentences()))


def compare(
    examples: Sequence[RankingExample],
    new_scores: Sequence[torch.Tensor],
    old_scores: Sequence[torch.Tensor],
) -> Comparison:
    """Compare two reward models on rankings that neither was fitted on.

    Scores are lists of (K,). The interval is a bootstrap over prompts, since the rankings of a
    prompt share what is hard about it.
    """
    counts: dict[str, list[int]] = {}
    for name, example, new, old in zip(
        prompt_names(examples), examples, new_scores, old_scores, strict=True
    ):
        ranks = torch.tensor(example.ranks)
        new_right, pairs = pair_accuracy(new, ranks)
        old_right, _ = pair_accuracy(old, ranks)
        row = counts.setdefault(name, [0, 0, 0])
        for place, value in enumerate((new_right, old_right, pairs)):
            row[place] += value
    rows = np.array(list(counts.values()), dtype=np.float64)
    difference = bootstrap_interval(
        rows, lambda drawn: float((drawn[:, 0] - drawn[:, 1]).sum() / drawn[:, 2].sum())
    )
    new_right, old_right, pairs = (int(total) for total in rows.sum(0))
    return Comparison(new_right, old_right, pairs, difference)


def length_note(evaluation: RewardEvaluation) -> Sentence | None:
    """A sentence when the scores mostly follow the length of the reply; it is for the person."""
    correlation = evaluation.length_correlation
    if abs(correlation) < FOLLOWS_LENGTH:
        return None
    measured = f"{correlation:+.2f}"
    if correlation > 0:
        return say(
            "Your rankings mostly follow length: the reward model scores longer replies higher "
            "(correlation {correlation}). If that is not what you mean, rank replies of similar "
            "length too.",
            correlation=measured,
        )
    return say(
        "Your rankings mostly follow length: the reward model scores shorter replies higher "
        "(correlation {correlation}). If that is not what you mean, rank replies of similar "
        "length too.",
        correlation=measured,
    )


def policy_gates(
    candidate: Canary, parent: Canary, kl: float, kl_budget: float
) -> list[GateResult]:
    """Gates of a policy against its parent on the same held-out prompts."""
    reward = say(
        "Mean score on held-out prompts {before} -> {after}.",
        before=f"{parent.score:+.2f}",
        after=f"{candidate.score:+.2f}",
    )
    distance = say(
        "Distance from the parent {kl} nats a reply; the budget is {budget}.",
        kl=f"{kl:.1f}",
        budget=f"{kl_budget:g}",
    )
    repetition = say(
        "Repeated phrases {before} -> {after} (at most {most} more).",
        **_shares(parent.repetition, candidate.repetition, MOST_REPETITION),
    )
    endings = say(
        "Replies that end by themselves {before} -> {after} (at most {most} fewer).",
        **_shares(parent.finished, candidate.finished, MOST_END_LOSS),
    )
    empty = say(
        "Empty replies {before} -> {after} (at most {most} more).",
        **_shares(parent.empty, candidate.empty, MOST_EMPTY),
    )
    repeats_little = candidate.repetition <= parent.repetition + MOST_REPETITION
    ends_often = candidate.finished >= parent.finished - MOST_END_LOSS
    return [
        GateResult("reward", candidate.score > parent.score, (reward,)),
        GateResult("KL budget", kl <= kl_budget, (distance,)),
        GateResult("repetition", repeats_little, (repetition,)),
        GateResult("endings", ends_often, (endings,)),
        GateResult("empty replies", candidate.empty <= parent.empty + MOST_EMPTY, (empty,)),
    ]


def _shares(before: float, after: float, most: float) -> dict[str, str]:
    return {"before": f"{before:.0%}", "after": f"{after:.0%}", "most": f"{most:.0%}"}


def demonstration_gate(before: float, after: float) -> GateResult:
    """SFT alone: held-out demonstrations must not have become less likely."""
    loss = say(
        "Loss on demonstrations {before} -> {after} nats per token.",
        before=f"{before:.3f}",
        after=f"{after:.3f}",
    )
    return GateResult("demonstrations", after <= before, (loss,))


def measure(rollout: Rollout, scores: Tensor, spread: Tensor) -> Canary:
    """Measure a version by its replies. ``scores``, ``spread``: (B,)."""
    bodies = [
        response[:-1] if finished else response
        for response, finished in zip(rollout.responses, rollout.finished, strict=True)
    ]
    return Canary(
        score=float(scores.mean()),
        reply_tokens=sum(len(body) for body in bodies) / len(bodies),
        finished=sum(rollout.finished) / len(rollout),
        repetition=sum(repeated_share(body) for body in bodies) / len(bodies),
        empty=sum(not body for body in bodies) / len(bodies),
        spread=float(spread.mean()),
    )


def repeated_share(tokens: Sequence[int]) -> float:
    """Share of a reply's 4-grams that occurred in it before."""
    grams = [tuple(tokens[at : at + _NGRAM]) for at in range(len(tokens) - _NGRAM + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
