"""May this reward model be trusted, and may this version go live?

Each gate says in words what it found. A failed gate keeps the old version live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chatrlhf.loop.intervals import Interval, bootstrap_interval, wilson_interval
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
    """One gate: its name, whether it passed, and a sentence with the numbers."""

    name: str
    passed: bool
    text: str


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

    def sentence(self) -> str:
        """The numbers in words."""
        verdict = "surely worse" if self.is_worse else "not surely worse"
        return (
            f"Of the {self.pairs} pairs that are newer than the live version's reward model, it "
            f"orders {self.new_right} as you did, the old one {self.old_right}: {verdict} (95% "
            f"interval of the difference {self.difference.low:+.0%} to "
            f"{self.difference.high:+.0%})."
        )


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
        return GateResult(
            name=name,
            passed=False,
            text="The reward model could not be checked: no held-out ranking orders two "
            "replies. Rank more prompts.",
        )
    _, low, high = wilson_interval(
        evaluation.accuracy * evaluation.effective_pairs, evaluation.effective_pairs
    )
    text = (
        f"On prompts it was not fitted on, the reward model orders {evaluation.right} of "
        f"{evaluation.pairs} pairs as you did ({evaluation.accuracy:.0%}, 95% interval "
        f"{low:.0%}-{high:.0%}; its odds are off by {evaluation.calibration_error:.0%} on average)"
    )
    if low <= 0.5:
        text += (
            ": not surely better than chance, so nothing is trained against it or promoted. "
            "More rankings make it better."
        )
        return GateResult(name=name, passed=False, text=text)
    text += ": better than chance."
    if against_incumbent is None:
        return GateResult(name=name, passed=True, text=text)
    return GateResult(
        name=name,
        passed=not against_incumbent.is_worse,
        text=f"{text} {against_incumbent.sentence()}",
    )


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


def length_note(evaluation: RewardEvaluation) -> str | None:
    """A sentence when the scores mostly follow the length of the reply; it is for the person."""
    correlation = evaluation.length_correlation
    if abs(correlation) < FOLLOWS_LENGTH:
        return None
    liked = "longer" if correlation > 0 else "shorter"
    return (
        f"Your rankings mostly follow length: the reward model scores {liked} replies higher "
        f"(correlation {correlation:+.2f}). If that is not what you mean, rank replies of similar "
        "length too."
    )


def policy_gates(
    candidate: Canary, parent: Canary, kl: float, kl_budget: float
) -> list[GateResult]:
    """Gates of a policy against its parent on the same held-out prompts."""
    return [
        GateResult(
            "reward",
            candidate.score > parent.score,
            f"Mean score on held-out prompts {parent.score:+.2f} -> {candidate.score:+.2f}.",
        ),
        GateResult(
            "KL budget",
            kl <= kl_budget,
            f"Distance from the parent {kl:.1f} nats a reply; the budget is {kl_budget:g}.",
        ),
        GateResult(
            "repetition",
            candidate.repetition <= parent.repetition + MOST_REPETITION,
            f"Repeated phrases {parent.repetition:.0%} -> {candidate.repetition:.0%} "
            f"(at most {MOST_REPETITION:.0%} more).",
        ),
        GateResult(
            "endings",
            candidate.finished >= parent.finished - MOST_END_LOSS,
            f"Replies that end by themselves {parent.finished:.0%} -> {candidate.finished:.0%} "
            f"(at most {MOST_END_LOSS:.0%} fewer).",
        ),
        GateResult(
            "empty replies",
            candidate.empty <= parent.empty + MOST_EMPTY,
            f"Empty replies {parent.empty:.0%} -> {candidate.empty:.0%} "
            f"(at most {MOST_EMPTY:.0%} more).",
        ),
    ]


def demonstration_gate(before: float, after: float) -> GateResult:
    """SFT alone: held-out demonstrations must not have become less likely."""
    return GateResult(
        "demonstrations",
        after <= before,
        f"Loss on demonstrations {before:.3f} -> {after:.3f} nats per token.",
    )


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
