"""How well scores order rankings: agreement, likelihood, calibration, length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatrlhf.maths.calibration import cross_fitted_error, fitted_temperature
from chatrlhf.maths.ranking_loss import comparisons, effective_comparisons, plackett_luce_loss
from chatrlhf.training.reward_data import RankingExample, fold_of


@dataclass(frozen=True)
class RewardEvaluation:
    """How well scores order rankings whose prompts the fit did not see.

    ``effective_pairs`` counts what the comparisons are worth as independent ones: those of one
    ranking share replies, and a turn that several people ranked counts once. ``loss`` is the mean
    over turns. ``calibration_error`` is honest: each fold of prompts is judged at the temperature
    fitted to the others, while ``temperature`` is the one fitted to all. ``length_correlation``
    is Pearson's, between score and reply length in tokens, within rankings.
    """

    rankings: int
    pairs: int
    effective_pairs: float
    right: int
    loss: float
    temperature: float
    calibration_error: float
    length_correlation: float

    @property
    def accuracy(self) -> float:
        """Share of comparisons ordered right."""
        return self.right / self.pairs if self.pairs else 0.0


def evaluate_scores(
    examples: Sequence[RankingExample], scores: Sequence[Tensor]
) -> RewardEvaluation:
    """Compare scores, a list of (K,), with the ranks that people gave."""
    margins: list[Tensor] = []
    folds: list[int] = []
    deviations: list[tuple[Tensor, Tensor]] = []
    effective, loss = 0.0, 0.0
    for example, own, fold in zip(examples, scores, fold_of(examples), strict=True):
        ranks = torch.tensor(example.ranks)
        pairs = comparisons(ranks)
        margins.append(own[pairs[:, 0]] - own[pairs[:, 1]])
        folds += [fold] * len(pairs)
        effective += example.weight * effective_comparisons(ranks)
        loss += example.weight * float(plackett_luce_loss(own, ranks))
        lengths = torch.tensor(example.reply_lengths, dtype=torch.float32)
        deviations.append((own - own.mean(), lengths - lengths.mean()))
    flat = torch.cat(margins) if margins else torch.zeros(0)
    return RewardEvaluation(
        rankings=len(examples),
        pairs=flat.numel(),
        effective_pairs=effective,
        right=int((flat > 0).sum()),
        loss=loss / max(sum(example.weight for example in examples), 1e-9),
        temperature=fitted_temperature(flat),
        calibration_error=cross_fitted_error(flat, torch.tensor(folds)),
        length_correlation=_correlation(deviations),
    )


def _correlation(deviations: Sequence[tuple[Tensor, Tensor]]) -> float:
    if not deviations:
        return 0.0
    scores = torch.cat([score for score, _ in deviations])
    lengths = torch.cat([length for _, length in deviations])
    scale = float(scores.norm() * lengths.norm())
    return float(scores @ lengths) / scale if scale > 0.0 else 0.0
