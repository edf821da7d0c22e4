"""A scored batch of replies: what PPO learns from, fixed before the first update.

Notation: B replies, T response positions (right-padded).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from chatrlhf.maths.advantages import generalised_advantages, token_rewards
from chatrlhf.maths.masked import masked_row_sum, masked_whiten
from chatrlhf.settings import PpoSettings
from chatrlhf.training.rollout import Rollout

# A minibatch is a list of micro-batches, these are lists of rows of the batch.
Minibatch = list[list[int]]


def draw_minibatches(
    lengths: Sequence[int],
    count: int,
    micro_batch: int,
    generator: random.Random,
    at_once: int = 1,
) -> list[Minibatch]:
    """Split rows at random into ``count`` minibatches of equal size, and these into micro-batches.

    Rows of a minibatch are sorted by length first, so that little is padded. With fewer rows than
    minibatches wanted, each row is one. A minibatch becomes at least ``at_once`` micro-batches, if
    it has the rows, of about the same work.
    """
    order = list(range(len(lengths)))
    generator.shuffle(order)
    count = min(count, len(order))
    minibatches = []
    for start in range(count):
        rows = sorted(order[start::count], key=lambda row: lengths[row])
        parts = min(max(math.ceil(len(rows) / micro_batch), at_once), len(rows))
        minibatches.append(_even_parts(rows, [lengths[row] for row in rows], parts, micro_batch))
    return minibatches


def _even_parts(
    rows: Sequence[int], lengths: Sequence[int], parts: int, most: int
) -> list[list[int]]:
    """Cut rows of ascending length, so that the largest part has as few padded tokens as can be."""

    def cut(limit: int) -> list[list[int]]:
        found: list[list[int]] = []
        for row, length in zip(rows, lengths, strict=True):
            size = len(found[-1]) if found else most
            if size >= most or (size + 1) * length > limit:
                found.append([])
            found[-1].append(row)
        return found

    low, high = max(lengths), len(rows) * max(lengths)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(cut(middle)) <= parts else (middle + 1, high)
    return cut(low)


class Part(NamedTuple):
    """Some rows of a batch; all tensors are (rows, T of these rows)."""

    is_response_token: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Experience:
    """A scored batch. Tensors are (B, T) on the CPU but for ``scores`` (B,).

    ``advantages`` are whitened over the real tokens of the whole batch, ``returns`` are not.
    """

    rollout: Rollout
    scores: Tensor
    is_response_token: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor
    old_values: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor

    def part(self, rows: Sequence[int], device: torch.device) -> Part:
        """These rows, without the columns that only longer replies have."""
        width = int(self.is_response_token[list(rows)].sum(-1).max())
        return Part(*(getattr(self, name)[list(rows), :width].to(device) for name in Part._fields))

    def tokens(self, rows: Sequence[int]) -> int:
        """Number of response tokens of these rows."""
        return int(self.is_response_token[list(rows)].sum())

    def sequence_kl(self) -> Tensor:
        """Estimated KL(policy, reference) of each reply, summed over its tokens, (B,)."""
        return masked_row_sum(self.old_logprobs - self.reference_logprobs, self.is_response_token)

    def sampling_mismatch(self) -> float:
        """Mean |difference| between the log-probability of drawing a token and the old one."""
        drawn = [logprob for row in self.rollout.logprobs for logprob in row]
        old = self.old_logprobs[self.is_response_token]
        return float((old.new_tensor(drawn) - old).abs().mean())


class Measured(NamedTuple):
    """Old log-probabilities, reference log-probabilities and old values, (B, T) on the CPU."""

    old_logprobs: Tensor
    reference_logprobs: Tensor
    old_values: Tensor

    @classmethod
    def empty(cls, rollout: Rollout) -> Measured:
        """Zeros for every response token."""
        shape = (len(rollout), max(len(response) for response in rollout.responses))
        return cls(torch.zeros(shape), torch.zeros(shape), torch.zeros(shape))

    def fill(self, rows: Sequence[int], *grids: Tensor) -> None:
        """Write what was measured for some rows; the grids are in the order of the fields."""
        for whole, grid in zip(self, grids, strict=True):
            whole[list(rows), : grid.shape[1]] = grid.detach().cpu()


def make_experience(
    rollout: Rollout,
    scores: Tensor,
    measured: Measured,
    settings: PpoSettings,
    kl_coefficient: float,
) -> Experience:
    """Rewards, advantages and returns of a batch; ``scores`` (B,) are the scorer's.

    A reply that did not end gets ``missing_eos_score`` instead of its score, unless
    ``score_unfinished``.
    """
    mask = response_positions(rollout)
    keeps_score = torch.tensor(rollout.finished) | settings.score_unfinished
    judged = torch.where(keeps_score, scores, torch.full_like(scores, settings.missing_eos_score))
    penalty = kl_coefficient if settings.kl_estimator == "k1" else 0.0
    rewards = token_rewards(
        judged, measured.old_logprobs, measured.reference_logprobs, mask, penalty
    )
    advantages, returns = generalised_advantages(
        rewards, measured.old_values, mask, settings.discount, settings.gae_lambda
    )
    return Experience(
        rollout=rollout,
        scores=scores,
        is_response_token=mask,
        old_logprobs=measured.old_logprobs,
        reference_logprobs=measured.reference_logprobs,
        old_values=measured.old_values,
        rewards=rewards,
        advantages=masked_whiten(advantages, mask),
        returns=returns,
    )


def response_positions(rollout: Rollout) -> Tensor:
    """True on the tokens of each response, (B, T) bool."""
    lengths = torch.tensor([len(response) for response in rollout.responses])
    return torch.arange(int(lengths.max())) < lengths[:, None]
