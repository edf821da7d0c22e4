"""Reward fitting: an adapter and a head learn to order replies as people did.

One ranking is one batch element: all its replies are scored together and enter one
Plackett-Luce term (Ouyang et al. 2022, section 3.5, found that splitting a ranking into pairs
that are shuffled over batches overfits). Run by ``chatrlhf train --stage reward``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatrlhf.errors import RoundError
from chatrlhf.maths.calibration import expected_calibration_error, fitted_temperature
from chatrlhf.maths.ranking_loss import comparisons, plackett_luce_loss
from chatrlhf.models.reward_model import RewardModel
from chatrlhf.settings import RewardSettings
from chatrlhf.training.batches import TokenSequence, batches_by_length, make_batch


@dataclass(frozen=True)
class RankingExample:
    """One ranking: K replies with their context as tokens, and their ranks (1 is best)."""

    sequences: tuple[TokenSequence, ...]
    ranks: tuple[int, ...]
    reply_lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True)
class RewardStep:
    """What one optimizer step did."""

    step: int
    steps: int
    loss: float
    grad_norm: float


@dataclass(frozen=True)
class RewardEvaluation:
    """How well the scores order rankings that were not trained on.

    ``length_correlation`` is Pearson's, between score and reply length in tokens, within rankings.
    """

    pairs: int
    right: int
    loss: float
    temperature: float
    calibration_error: float
    length_correlation: float

    @property
    def accuracy(self) -> float:
        """Share of comparisons ordered right."""
        return self.right / self.pairs if self.pairs else 0.0


def fit_reward_model(
    model: RewardModel,
    examples: Sequence[RankingExample],
    settings: RewardSettings,
    seed: int,
    on_step: Callable[[RewardStep], None] | None = None,
) -> None:
    """Train adapter and head in place.

    Raises:
        RoundError: the loss is not finite.
    """
    generator = random.Random(seed)
    lengths = [example.longest for example in examples]
    steps = settings.epochs * math.ceil(len(examples) / settings.rankings_per_batch)
    groups = [
        {"params": model.lora_parameters(), "lr": settings.learning_rate},
        {"params": list(model.head.parameters()), "lr": settings.head_learning_rate},
    ]
    rates = [settings.learning_rate, settings.head_learning_rate]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, eps=1e-5, fused=True)
    parameters = [*model.lora_parameters(), *model.head.parameters()]
    step = 0
    for _ in range(settings.epochs):
        for indices in batches_by_length(lengths, settings.rankings_per_batch, generator):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1.0 - step / steps)
            chosen = [examples[index] for index in indices]
            scores = _scores_of(model, chosen)
            losses = [
                plackett_luce_loss(s, torch.tensor(e.ranks, device=s.device))
                for s, e in zip(scores, chosen, strict=True)
            ]
            loss = torch.stack(losses).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            if not math.isfinite(float(loss.detach()) + float(norm)):
                raise RoundError(
                    f"The reward model diverged at step {step + 1} of {steps}. "
                    "Lower reward.learning_rate; nothing was published."
                )
            optimizer.step()
            step += 1
            if on_step:
                on_step(RewardStep(step, steps, float(loss.detach()), float(norm)))


@torch.no_grad()
def evaluate_rankings(model: RewardModel, examples: Sequence[RankingExample]) -> RewardEvaluation:
    """Order every ranking by score and compare with what people said."""
    margins: list[Tensor] = []
    losses: list[float] = []
    deviations: list[tuple[Tensor, Tensor]] = []
    for example in examples:
        scores = _scores_of(model, [example])[0].cpu()
        ranks = torch.tensor(example.ranks)
        pairs = comparisons(ranks)
        margins.append(scores[pairs[:, 0]] - scores[pairs[:, 1]])
        losses.append(float(plackett_luce_loss(scores, ranks)))
        lengths = torch.tensor(example.reply_lengths, dtype=torch.float32)
        deviations.append((scores - scores.mean(), lengths - lengths.mean()))
    flat = torch.cat(margins) if margins else torch.zeros(0)
    temperature = fitted_temperature(flat)
    return RewardEvaluation(
        pairs=flat.numel(),
        right=int((flat > 0).sum()),
        loss=sum(losses) / max(len(losses), 1),
        temperature=temperature,
        calibration_error=expected_calibration_error(flat, temperature),
        length_correlation=_correlation(deviations),
    )


@torch.no_grad()
def score_sequences(
    model: RewardModel, sequences: Sequence[TokenSequence], micro_batch: int
) -> Tensor:
    """Scores of replies with their context, (B,) float32 on the CPU."""
    scores = [
        _forward(model, sequences[start : start + micro_batch]).cpu()
        for start in range(0, len(sequences), micro_batch)
    ]
    return torch.cat(scores) if scores else torch.zeros(0)


@torch.no_grad()
def normalise(model: RewardModel, sequences: Sequence[TokenSequence], micro_batch: int) -> None:
    """Set the head's shift and scale: mean 0 and standard deviation 1 over these replies.

    Redone after every fit, or the KL coefficient would change its meaning.
    """
    model.head.mean.zero_()
    model.head.std.fill_(1.0)
    scores = score_sequences(model, sequences, micro_batch)
    if scores.numel() < 2:
        return
    model.head.mean.copy_(scores.mean())
    model.head.std.copy_(scores.std().clamp(min=1e-4))


def _scores_of(model: RewardModel, examples: Sequence[RankingExample]) -> list[Tensor]:
    sequences = [sequence for example in examples for sequence in example.sequences]
    scores = _forward(model, sequences)
    return list(torch.split(scores, [len(example.sequences) for example in examples]))


def _forward(model: RewardModel, sequences: Sequence[TokenSequence]) -> Tensor:
    batch = make_batch(sequences, model.base.chat_format.pad_token_id, model.base.device)
    return model.scores(batch.token_ids, batch.last_token)


def _correlation(deviations: Sequence[tuple[Tensor, Tensor]]) -> float:
    if not deviations:
        return 0.0
    scores = torch.cat([score for score, _ in deviations])
    lengths = torch.cat([length for _, length in deviations])
    scale = float(scores.norm() * lengths.norm())
    return float(scores @ lengths) / scale if scale > 0.0 else 0.0
