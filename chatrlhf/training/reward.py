"""Reward fitting: a head, and with enough data an adapter, learn to order replies as people did.

Two steps. First a linear head on frozen pooled features, by Plackett-Luce with a ridge: convex,
seconds long, and judged by cross-validation over prompts, so that every ranking is predicted once
by a head that never saw its prompt. Then, from a few hundred rankings on, the adapter is trained
too. One ranking is one batch element: all its replies enter one Plackett-Luce term (Ouyang et al.
2022, section 3.5, found that splitting a ranking into shuffled pairs overfits).
Run by ``chatrlhf train --stage reward``.
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
from chatrlhf.maths.ranking_loss import batch_plackett_luce_loss, comparisons, plackett_luce_loss
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.settings import RewardSettings
from chatrlhf.training.batches import TokenSequence, batches_by_length, make_batch

RIDGES = (0.01, 0.1, 1.0)
FOLDS = 6
_LBFGS_STEPS = 100


@dataclass(frozen=True)
class RankingExample:
    """One ranking: K replies with their context as tokens, and their ranks (1 is best).

    ``prompt_key`` names the context; rankings with one key are never split between folds.
    """

    sequences: tuple[TokenSequence, ...]
    ranks: tuple[int, ...]
    reply_lengths: tuple[int, ...]
    prompt_key: str = ""

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
    """How well scores order rankings whose prompts the fit did not see.

    ``effective_pairs`` counts what the comparisons are worth as independent ones: the comparisons
    of one ranking share replies. For K replies and no skill, the variance of the share ordered
    right is (2 K + 5) / 9 times that of independent pairs (Kendall 1938, "A New Measure of Rank
    Correlation"). ``length_correlation`` is Pearson's, between score and reply length in tokens,
    within rankings.
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


def fold_of(examples: Sequence[RankingExample]) -> list[int]:
    """A fold for each ranking, the same for all rankings of a prompt, balanced over prompts."""
    keys = [one.prompt_key or f"#{index}" for index, one in enumerate(examples)]
    folds = min(FOLDS, len(set(keys)))
    number = {key: place % folds for place, key in enumerate(sorted(set(keys)))}
    return [number[key] for key in keys]


@torch.no_grad()
def ranking_features(
    model: RewardModel,
    examples: Sequence[RankingExample],
    on_step: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Pooled features of every ranking's replies: a list of (K, D)."""
    found: list[Tensor] = []
    for example in examples:
        found.append(_features(model, example.sequences).cpu())
        if on_step:
            on_step(len(found), len(examples))
    return found


def fit_head(
    head: ScalarHead,
    examples: Sequence[RankingExample],
    features: Sequence[Tensor],
) -> RewardEvaluation:
    """Fit the head to all rankings in place; the evaluation is out of fold.

    The ridge is the one of ``RIDGES`` with the least out-of-fold loss.
    """
    ranks = [torch.tensor(example.ranks) for example in examples]
    fold = torch.tensor(fold_of(examples))
    found: list[tuple[float, float, list[Tensor]]] = []
    for ridge in RIDGES:
        scores: list[Tensor] = [torch.zeros(0)] * len(examples)
        for one in range(int(fold.max()) + 1):
            inside = [index for index in range(len(examples)) if int(fold[index]) != one]
            trial = _fitted(head, [features[i] for i in inside], [ranks[i] for i in inside], ridge)
            with torch.no_grad():
                for index in (fold == one).nonzero()[:, 0].tolist():
                    scores[index] = trial(features[index])
        losses = [plackett_luce_loss(s, r) for s, r in zip(scores, ranks, strict=True)]
        found.append((float(torch.stack(losses).mean()), ridge, scores))
    _, ridge, scores = min(found, key=lambda item: item[0])
    head.load(_fitted(head, features, ranks, ridge).state())
    return evaluate_scores(examples, scores)


def fit_reward_model(
    model: RewardModel,
    examples: Sequence[RankingExample],
    settings: RewardSettings,
    seed: int,
    on_step: Callable[[RewardStep], None] | None = None,
) -> None:
    """Train adapter and head in place, from wherever they are.

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
            losses = [
                plackett_luce_loss(s, torch.tensor(e.ranks, device=s.device))
                for s, e in zip(_scores_of(model, chosen), chosen, strict=True)
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
    scores = [_scores_of(model, [example])[0].cpu() for example in examples]
    return evaluate_scores(examples, scores)


def evaluate_scores(
    examples: Sequence[RankingExample], scores: Sequence[Tensor]
) -> RewardEvaluation:
    """Compare scores, a list of (K,), with the ranks that people gave."""
    margins: list[Tensor] = []
    losses: list[float] = []
    deviations: list[tuple[Tensor, Tensor]] = []
    effective = 0.0
    for example, own in zip(examples, scores, strict=True):
        ranks = torch.tensor(example.ranks)
        pairs = comparisons(ranks)
        margins.append(own[pairs[:, 0]] - own[pairs[:, 1]])
        effective += len(pairs) * 9.0 / (2 * len(ranks) + 5)
        losses.append(float(plackett_luce_loss(own, ranks)))
        lengths = torch.tensor(example.reply_lengths, dtype=torch.float32)
        deviations.append((own - own.mean(), lengths - lengths.mean()))
    flat = torch.cat(margins) if margins else torch.zeros(0)
    temperature = fitted_temperature(flat)
    return RewardEvaluation(
        rankings=len(examples),
        pairs=flat.numel(),
        effective_pairs=effective,
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
        model.head(_features(model, sequences[start : start + micro_batch])).cpu()
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


def _fitted(
    like: ScalarHead, features: Sequence[Tensor], ranks: Sequence[Tensor], ridge: float
) -> ScalarHead:
    """A head with the least penalised Plackett-Luce loss, by L-BFGS; features are (K, D) each."""
    head = ScalarHead(like.hidden_size)
    head.fit_feature_statistics(torch.cat(list(features)))
    most = max(len(one) for one in ranks)
    inputs = torch.zeros(len(features), most, features[0].shape[-1])
    order = torch.zeros(len(features), most, dtype=torch.long)
    is_reply = torch.zeros(len(features), most, dtype=torch.bool)
    for row, (own, rank) in enumerate(zip(features, ranks, strict=True)):
        inputs[row, : len(own)] = head.standardised(own)
        order[row, : len(own)] = rank
        is_reply[row, : len(own)] = True
    weight = torch.zeros(inputs.shape[-1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=_LBFGS_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = batch_plackett_luce_loss(inputs @ weight, order, is_reply)
        value = value + ridge * weight.square().sum()
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call, unused-ignore]
    with torch.no_grad():
        head.weight.copy_(weight)
    return head


def _scores_of(model: RewardModel, examples: Sequence[RankingExample]) -> list[Tensor]:
    sequences = [sequence for example in examples for sequence in example.sequences]
    scores: Tensor = model.head(_features(model, sequences))
    return list(torch.split(scores, [len(example.sequences) for example in examples]))


def _features(model: RewardModel, sequences: Sequence[TokenSequence]) -> Tensor:
    batch = make_batch(sequences, model.base.chat_format.pad_token_id, model.base.device)
    return model.features(batch.token_ids, batch.is_response_token, batch.last_token)


def _correlation(deviations: Sequence[tuple[Tensor, Tensor]]) -> float:
    if not deviations:
        return 0.0
    scores = torch.cat([score for score, _ in deviations])
    lengths = torch.cat([length for _, length in deviations])
    scale = float(scores.norm() * lengths.norm())
    return float(scores @ lengths) / scale if scale > 0.0 else 0.0
