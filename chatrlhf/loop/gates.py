"""May this reward model be trusted, and may this version go live?

Each gate says in words what it found. A failed gate keeps the old version live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from chatrlhf.loop.intervals import wilson_interval
from chatrlhf.training.reward import RewardEvaluation
from chatrlhf.training.rollout import Rollout

MOST_REPETITION = 0.15
MOST_END_LOSS = 0.10
MOST_EMPTY = 0.05
_NGRAM = 4


@dataclass(frozen=True)
class GateResult:
    """One gate: its name, whether it passed, and a sentence with the numbers."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Canary:
    """Replies of one version to the fixed gate prompts. Scores are the reward model's."""

    score: float
    reply_tokens: float
    finished: float
    repetition: float
    empty: float


def reward_gate(evaluation: RewardEvaluation) -> GateResult:
    """Agreement on unseen prompts: the Wilson lower bound must lie above chance."""
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
    passed = low > 0.5
    text = (
        f"On prompts it was not fitted on, the reward model orders {evaluation.right} of "
        f"{evaluation.pairs} pairs as you did ({evaluation.accuracy:.0%}, 95% interval "
        f"{low:.0%}-{high:.0%})"
    )
    if passed:
        text += ": better than chance."
    else:
        text += (
            ": not surely better than chance, so nothing is trained against it or promoted. "
            "More rankings make it better."
        )
    return GateResult(name=name, passed=passed, text=text)


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


def measure(rollout: Rollout, scores: torch.Tensor) -> Canary:
    """Measure a version by its replies. ``scores``: (B,)."""
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
    )


def repeated_share(tokens: Sequence[int]) -> float:
    """Share of a reply's 4-grams that occurred in it before."""
    grams = [tuple(tokens[at : at + _NGRAM]) for at in range(len(tokens) - _NGRAM + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
