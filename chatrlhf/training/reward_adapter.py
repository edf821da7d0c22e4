"""The reward adapter: with enough rankings, LoRA and a head are trained together by gradient.

One ranking is one batch element: all its replies enter one Plackett-Luce term. Afterwards the
convex heads are fitted again, to the features of the new adapter. One fold of prompts is kept out
of all of it, to tell whether the adapter helps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from chatrlhf.errors import RoundError
from chatrlhf.maths.ranking_loss import plackett_luce_loss, strength_margin
from chatrlhf.models.reward_model import RewardModel
from chatrlhf.settings import RewardSettings
from chatrlhf.training.batches import batches_by_length, make_batch
from chatrlhf.training.reward import ranking_features
from chatrlhf.training.reward_data import RankingExample, fold_of
from chatrlhf.training.reward_evaluation import RewardEvaluation, evaluate_scores
from chatrlhf.training.reward_head import fit_heads
from chatrlhf.training.row_limit import RowLimit, parts_of


@dataclass(frozen=True)
class RewardStep:
    """What one optimizer step did."""

    step: int
    steps: int
    loss: float
    grad_norm: float


def fit_reward_model(
    model: RewardModel,
    examples: Sequence[RankingExample],
    settings: RewardSettings,
    seed: int,
    on_step: Callable[[RewardStep], None] | None = None,
) -> None:
    """Train adapter and head in place, from wherever they are.

    Raises:
        RoundError: the loss is not finite, or memory runs out with a single ranking.
    """
    generator = random.Random(seed)
    limit = RowLimit()
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
            loss = limit.halving(
                len(chosen), partial(_accumulate, model, chosen, settings, optimizer)
            )
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            if not math.isfinite(loss + float(norm)):
                raise RoundError(
                    f"The reward model diverged at step {step + 1} of {steps}. "
                    "Lower reward.learning_rate; nothing was published."
                )
            optimizer.step()
            step += 1
            if on_step:
                on_step(RewardStep(step, steps, loss, float(norm)))


@dataclass(frozen=True)
class AdapterTrial:
    """Heads on frozen features against heads on those of a trained adapter.

    Both evaluations are of the held-out rankings ``examples``; ``scores`` are those of the heads
    on the trained adapter, (K,) for each.
    """

    frozen: RewardEvaluation
    trained: RewardEvaluation
    examples: list[RankingExample]
    scores: list[Tensor]
    features: list[Tensor]

    @property
    def helped(self) -> bool:
        """Whether the held-out rankings became likelier."""
        return self.trained.loss < self.frozen.loss


def try_adapter(
    model: RewardModel,
    examples: Sequence[RankingExample],
    features: Sequence[Tensor],
    ridge: float,
    settings: RewardSettings,
    seed: int,
    on_step: Callable[[RewardStep], None] | None = None,
) -> AdapterTrial:
    """Train the adapter, in place, on all folds but one, and compare on that one.

    ``features`` are those of the frozen adapter; the trial holds those of the trained one.

    Raises:
        RoundError: the loss is not finite.
    """
    fold = fold_of(examples)
    inside = [index for index, one in enumerate(fold) if one]
    outside = [index for index, one in enumerate(fold) if not one]
    train, held_out = [examples[i] for i in inside], [examples[i] for i in outside]
    frozen = fit_heads(train, [features[i] for i in inside], settings, ridge, seed)
    before = [frozen.scores(features[i]) for i in outside]
    model.head.load(frozen.mean_head().state())
    fit_reward_model(model, train, settings, seed, on_step)
    found = ranking_features(model, examples)
    trained = fit_heads(train, [found[i] for i in inside], settings, ridge, seed)
    after = [trained.scores(found[i]) for i in outside]
    return AdapterTrial(
        frozen=evaluate_scores(held_out, before),
        trained=evaluate_scores(held_out, after),
        examples=held_out,
        scores=after,
        features=found,
    )


@torch.no_grad()
def evaluate_rankings(model: RewardModel, examples: Sequence[RankingExample]) -> RewardEvaluation:
    """Order every ranking by the head's score and compare with what people said."""
    scores = [_scores(model, [example])[0].cpu() for example in examples]
    return evaluate_scores(examples, scores)


def _accumulate(
    model: RewardModel,
    examples: Sequence[RankingExample],
    settings: RewardSettings,
    optimizer: torch.optim.Optimizer,
    rankings: int,
) -> float:
    """Gradients of the mean over turns of the loss with margins, ``rankings`` of them at once."""
    optimizer.zero_grad(set_to_none=True)
    weight = sum(example.weight for example in examples)
    total = 0.0
    for places in parts_of(range(len(examples)), rankings):
        part = [examples[place] for place in places]
        losses = [
            example.weight
            / weight
            * plackett_luce_loss(
                scores,
                torch.tensor(example.ranks, device=scores.device),
                strength_margin(example.strength, settings.strength_margin),
            )
            for scores, example in zip(_scores(model, part), part, strict=True)
        ]
        loss = torch.stack(losses).sum()
        torch.autograd.backward(loss)
        total += float(loss.detach())
    return total


def _scores(model: RewardModel, examples: Sequence[RankingExample]) -> list[Tensor]:
    sequences = [sequence for example in examples for sequence in example.sequences]
    batch = make_batch(sequences, model.base.chat_format.pad_token_id, model.base.device)
    scores = model.scores(batch.token_ids, batch.is_response_token, batch.last_token)
    return list(torch.split(scores, [len(example.sequences) for example in examples]))
