"""What policy, critic and reference say about the response tokens of some replies.

Everything that PPO compares (old and new log-probabilities, old and new values, the reference)
comes from here, by the same kernels on the same shapes, so that equal weights give equal bits.

Notation: B replies, T response positions (right-padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from chatrlhf.maths.logprobs import TokenStatistics
from chatrlhf.models.gradient_checkpointing import gradient_checkpointing
from chatrlhf.models.known_states import KnownStates, States
from chatrlhf.models.middle_layer import middle_states
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import ValueModel
from chatrlhf.training.batches import SequenceBatch, TokenSequence, make_batch


class Evaluation(NamedTuple):
    """Log-probabilities, entropies and values of the response tokens, (B, T), zero in padding."""

    logprobs: Tensor
    entropies: Tensor
    values: Tensor


class ActorCritic:
    """A policy with its reference and its critic, on one base."""

    def __init__(
        self, policy: Policy, critic: ValueModel, temperature: float, *, checkpointing: bool
    ) -> None:
        self.policy = policy
        self.critic = critic
        self.temperature = temperature
        self.checkpointing = checkpointing
        self._trunks: dict[tuple[torch.Size, bytes], Tensor | None] = {}

    def new_batch(self) -> None:
        """Forget what is kept of the replies of the batch before."""
        self._trunks.clear()
        self.policy.bank.known = KnownStates(self.policy.reference)

    def forget(self) -> None:
        """Let go of what other adapters could read of this batch."""
        self.policy.bank.known = None

    def batch(self, sequences: Sequence[TokenSequence]) -> SequenceBatch:
        """Replies with their prompts as one padded batch, on the model's device."""
        base = self.policy.base
        return make_batch(sequences, base.chat_format.pad_token_id, base.device)

    def evaluate(self, batch: SequenceBatch) -> Evaluation:
        """What policy and critic say; with gradients, unless they are off."""
        wanted = self.checkpointing and torch.is_grad_enabled()
        scope = gradient_checkpointing(self.policy.base, self.policy.bank)
        trunk = self._trunk(batch.token_ids)
        with scope if wanted else nullcontext():
            statistics = self._statistics(self.policy, batch)
            values = self.critic.values(
                batch.token_ids, batch.is_response_token, batch.predicts_response, trunk
            )
        return Evaluation(
            _grid(statistics.logprobs, batch),
            _grid(statistics.entropies, batch),
            _grid(values, batch),
        )

    @torch.no_grad()
    def reference_logprobs(self, batch: SequenceBatch) -> Tensor:
        """Log-probabilities under the reference policy, (B, T)."""
        with self.policy.as_reference() as reference:
            with middle_states(self.policy.base) as middle:
                hidden = reference.hidden_states(batch.token_ids)
            if self.policy.bank.known is not None:
                lengths = batch.is_token.sum(-1).tolist()
                self.policy.bank.known.keep(batch.token_ids, lengths, States(hidden, middle[-1]))
            found = reference.statistics_of(
                hidden, batch.predicts_response, batch.targets, self.temperature
            )
        return _grid(found.logprobs, batch)

    @torch.no_grad()
    def is_reference(self) -> bool:
        """Whether policy and reference have the same weights."""
        if self.policy.reference is None:
            return False
        return self.policy.bank.are_equal(self.policy.adapter, self.policy.reference)

    def _trunk(self, token_ids: Tensor) -> Tensor | None:
        """The critic's lower half, computed once for all epochs of a batch."""
        key = token_ids.shape, token_ids.cpu().numpy().tobytes()
        if key not in self._trunks:
            self._trunks[key] = self.critic.trunk(token_ids)
        return self._trunks[key]

    def _statistics(self, policy: Policy, batch: SequenceBatch) -> TokenStatistics:
        return policy.token_statistics(
            batch.token_ids, batch.predicts_response, batch.targets, self.temperature
        )


def response_mask(batch: SequenceBatch) -> Tensor:
    """True on the real response tokens, counted from the first of each row, (B, T) bool."""
    lengths = batch.is_response_token.sum(-1)
    columns = torch.arange(int(lengths.max()), device=lengths.device)
    return columns < lengths[:, None]


def _grid(flat: Tensor, batch: SequenceBatch) -> Tensor:
    """Values of all response tokens in row-major order, (N,) -> (B, T)."""
    mask = response_mask(batch)
    return torch.zeros(mask.shape, device=flat.device).masked_scatter(mask, flat.float())
