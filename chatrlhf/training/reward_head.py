"""The ranking term: linear heads on frozen pooled features, by Plackett-Luce with a ridge.

Convex, seconds long, and judged by cross-validation over prompts, so that every ranking is
predicted once by heads that never saw its prompt. One ranking is one term of the loss: all its
replies enter together (Ouyang et al. 2022, section 3.5, found that splitting a ranking into
shuffled pairs overfits).

Several heads are fitted, each to prompts drawn with replacement (Breiman 1996, "Bagging
predictors"): their mean is the score, their standard deviation says how unsure it is.

Notation: N rankings of up to K replies, E heads, D features, R reduced coordinates.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatrlhf.maths.ranking_loss import plackett_luce_loss, plackett_luce_losses, strength_margin
from chatrlhf.models.reward_model import POOLS, ScalarHead
from chatrlhf.models.reward_terms import FeatureScale
from chatrlhf.settings import RewardSettings
from chatrlhf.training.convex_fit import RIDGES, Reduced, minimum
from chatrlhf.training.reward_data import RankingExample, fold_of, prompt_names


@dataclass(frozen=True)
class Heads:
    """Linear heads ``weights`` (E, D) on features standardised by ``scale``."""

    scale: FeatureScale
    weights: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """The mean of the heads for pooled features, (K, D) -> (K,)."""
        return (self.scale(features) @ self.weights.T).mean(-1)

    def mean_head(self) -> ScalarHead:
        """The mean of the heads as one."""
        head = ScalarHead(self.weights.shape[-1] // POOLS)
        head.load(
            {
                "weight": self.weights.mean(0),
                "bias": torch.zeros(()),
                "feature_mean": self.scale.mean,
                "feature_scale": self.scale.scale,
            }
        )
        return head


def fit_heads(
    examples: Sequence[RankingExample],
    features: Sequence[Tensor],
    settings: RewardSettings,
    ridge: float,
    seed: int,
    scale: FeatureScale | None = None,
) -> Heads:
    """Fit ``settings.ensemble`` heads; a single one is fitted to all prompts.

    Args:
        examples: the rankings.
        features: for each of them, the pooled features of its replies, (K, D).
        settings: ``ensemble`` and ``strength_margin``.
        ridge: weight of the squared length of a head.
        seed: of the resampling.
        scale: how features are standardised; over these replies if not given.
    """
    fit = _Rankings(examples, features, settings, scale)
    return Heads(fit.scale, fit.solve(ridge, settings.ensemble, seed))


def cross_validate(
    examples: Sequence[RankingExample],
    features: Sequence[Tensor],
    settings: RewardSettings,
    seed: int,
) -> tuple[float, list[Tensor]]:
    """The best ridge, and for each ranking the scores (K,) of heads that never saw its prompt.

    The best ridge has the least out-of-fold loss, where margins count nothing: they are no part
    of the likelihood. The rankings must be of two prompts at least; arguments as of ``fit_heads``.
    """
    fold = fold_of(examples)
    parts = []
    for one in range(max(fold) + 1):
        inside = [index for index, its in enumerate(fold) if its != one]
        outside = [index for index, its in enumerate(fold) if its == one]
        fit = _Rankings([examples[i] for i in inside], [features[i] for i in inside], settings)
        parts.append((fit, outside))

    def out_of_fold(ridge: float, heads: int) -> list[Tensor]:
        scores: list[Tensor] = [torch.zeros(0)] * len(examples)
        for fit, outside in parts:
            found = Heads(fit.scale, fit.solve(ridge, heads, seed))
            for index in outside:
                scores[index] = found.scores(features[index])
        return scores

    best = min(RIDGES, key=lambda ridge: _mean_loss(examples, out_of_fold(ridge, 1)))
    return best, out_of_fold(best, settings.ensemble)


class _Rankings:
    """Rankings as padded tensors in reduced coordinates, ready to be fitted."""

    def __init__(
        self,
        examples: Sequence[RankingExample],
        features: Sequence[Tensor],
        settings: RewardSettings,
        scale: FeatureScale | None = None,
    ) -> None:
        rows = torch.cat(list(features))
        self.scale = scale or FeatureScale.of(rows)
        self._reduced = Reduced.of(self.scale(rows))
        self._names = prompt_names(examples)
        self._weights = torch.tensor([one.weight for one in examples])
        margins = [strength_margin(one.strength, settings.strength_margin) for one in examples]
        self._margins = torch.tensor(margins)  # (N,)
        counts = [len(one.ranks) for one in examples]
        shape = (len(examples), max(counts))
        self._ranks = torch.zeros(shape, dtype=torch.long)
        self._is_reply = torch.zeros(shape, dtype=torch.bool)
        self._rows = torch.zeros(*shape, self._reduced.rows.shape[-1])  # (N, K, R)
        for place, own in enumerate(torch.split(self._reduced.rows, counts)):
            self._ranks[place, : len(own)] = torch.tensor(examples[place].ranks)
            self._is_reply[place, : len(own)] = True
            self._rows[place, : len(own)] = own

    def solve(self, ridge: float, heads: int, seed: int) -> Tensor:
        """The weights of ``heads`` heads, (heads, D)."""
        found = [self._solve(ridge, shares) for shares in self._shares(heads, seed)]
        return self._reduced.weights(torch.stack(found))

    def _solve(self, ridge: float, shares: Tensor) -> Tensor:
        used = shares > 0
        rows, ranks, is_reply = self._rows[used], self._ranks[used], self._is_reply[used]
        margins, shares = self._margins[used], shares[used]

        def loss(weight: Tensor) -> Tensor:
            losses = plackett_luce_losses(rows @ weight, ranks, is_reply, margins)
            return shares @ losses + ridge * weight.square().sum()

        return minimum(loss, (rows.shape[-1],))

    def _shares(self, heads: int, seed: int) -> list[Tensor]:
        """For each head, what part of the loss each ranking is, (N,); the parts sum to 1."""
        if heads == 1:
            return [self._weights / self._weights.sum()]
        names = sorted(set(self._names))
        found = []
        for head in range(heads):
            drawn = Counter(random.Random(f"{seed}/{head}").choices(names, k=len(names)))
            shares = self._weights * torch.tensor([float(drawn[name]) for name in self._names])
            found.append(shares / shares.sum())
        return found


def _mean_loss(examples: Sequence[RankingExample], scores: Sequence[Tensor]) -> float:
    losses = [
        example.weight * float(plackett_luce_loss(own, torch.tensor(example.ranks)))
        for example, own in zip(examples, scores, strict=True)
    ]
    return sum(losses) / sum(example.weight for example in examples)
