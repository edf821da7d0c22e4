"""Supervised fine-tuning: the policy learns demonstrations.

Departures from the textbook: the loss is the mean over response tokens only, and the LM head
projects only the positions that predict them. Run by ``chatrlhf train --stage sft`` and, for the
shipped starter adapter, by ``make starter``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatrlhf.errors import RoundError, RoundSkippedError
from chatrlhf.models.policy import Policy
from chatrlhf.settings import SftSettings
from chatrlhf.training.batches import SequenceBatch, TokenSequence, batches_by_length, make_batch

EVALUATION_BATCH = 8


@dataclass(frozen=True)
class SftStep:
    """What one optimizer step did."""

    step: int
    steps: int
    loss: float
    grad_norm: float
    learning_rate: float


def fit_demonstrations(
    policy: Policy,
    sequences: Sequence[TokenSequence],
    settings: SftSettings,
    seed: int,
    on_step: Callable[[SftStep], None] | None = None,
) -> None:
    """Train the policy's adapter in place.

    Raises:
        RoundSkippedError: no sequence has a response within ``max_tokens``.
        RoundError: the loss is not finite.
    """
    usable = [s for s in (q.shortened(settings.max_tokens) for q in sequences) if s is not None]
    if not usable:
        raise RoundSkippedError(
            f"None of {len(sequences)} demonstrations has a reply within {settings.max_tokens} "
            "tokens. Write shorter prompts or raise sft.max_tokens."
        )
    generator = random.Random(seed)
    lengths = [len(sequence) for sequence in usable]
    steps = settings.epochs * math.ceil(len(usable) / settings.batch_size)
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=settings.learning_rate, weight_decay=0.0, fused=True
    )
    step = 0
    for _ in range(settings.epochs):
        for indices in batches_by_length(lengths, settings.batch_size, generator):
            batch = _to_batch(policy, [usable[index] for index in indices])
            rate = settings.learning_rate * _schedule(step, steps, settings.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _token_losses(policy, batch).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
            if not math.isfinite(float(loss.detach()) + float(norm)):
                raise RoundError(
                    f"SFT diverged at step {step + 1} of {steps}: loss {float(loss.detach())}. "
                    "Lower sft.learning_rate; nothing was published."
                )
            optimizer.step()
            step += 1
            if on_step:
                on_step(SftStep(step, steps, float(loss.detach()), float(norm), rate))


@torch.no_grad()
def mean_token_loss(policy: Policy, sequences: Sequence[TokenSequence]) -> float:
    """Mean negative log-likelihood of the response tokens, in nats per token."""
    total, count = 0.0, 0
    ordered = sorted(sequences, key=len)
    for start in range(0, len(ordered), EVALUATION_BATCH):
        losses = _token_losses(policy, _to_batch(policy, ordered[start : start + EVALUATION_BATCH]))
        total += float(losses.sum())
        count += losses.numel()
    return total / max(count, 1)


def _token_losses(policy: Policy, batch: SequenceBatch) -> Tensor:
    statistics = policy.token_statistics(
        batch.token_ids, batch.predicts_response, batch.targets, temperature=1.0
    )
    return -statistics.logprobs


def _to_batch(policy: Policy, sequences: Sequence[TokenSequence]) -> SequenceBatch:
    return make_batch(sequences, policy.base.chat_format.pad_token_id, policy.base.device)


def _schedule(step: int, steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then linear decay to a tenth."""
    warmup = max(1, round(steps * warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 - 0.9 * (step - warmup) / max(1, steps - warmup)
