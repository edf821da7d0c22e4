"""Scalar heads beside an adapter: the reward model and the critic.

Notation: B rows, L positions, H hidden size, N response tokens of a batch in row-major order.

Both read the final hidden states of the base under their own LoRA adapter. The reward model
reads the last real token of a reply; the critic reads each position that a response token is
drawn from. The critic starts as a copy of the reward model, adapter and head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from chatrlhf.errors import VersionError
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy


class ScalarHead(nn.Module):
    """A linear map of a hidden state to one number, then shifted and scaled.

    ``score = (w h + b - mean) / std``; mean and std are set after each fit, so that scores of
    reference replies have mean 0 and standard deviation 1. Weights start as
    N(0, 1 / sqrt(H + 1)) (Stiennon et al. 2020, appendix B.1; with H + 1 inputs).
    """

    def __init__(self, hidden_size: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(hidden_size, generator=generator) / math.sqrt(hidden_size + 1)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(()))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores of hidden states, (..., H) -> (...) float32."""
        raw = hidden.float() @ self.weight + self.bias
        return (raw - self.mean) / self.std

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors on the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors in.

        Raises:
            VersionError: a tensor is missing, unknown or of another shape.
        """
        try:
            self.load_state_dict(dict(state))
        except RuntimeError as error:
            raise VersionError(f"The scalar head does not fit this base: {error}") from error


class RewardModel:
    """An adapter and a head that score whole replies."""

    def __init__(self, base: BaseModel, bank: LoraBank, adapter: str, head: ScalarHead) -> None:
        self.base = base
        self.bank = bank
        self.adapter = adapter
        self.head = head.to(base.device)

    def scores(self, token_ids: Tensor, last_token: Tensor) -> Tensor:
        """Scores of right-padded conversations, read at their last token.

        Args:
            token_ids: (B, L).
            last_token: (B,) position of the last real token.
        """
        hidden = Policy(self.base, self.bank, self.adapter).hidden_states(token_ids)
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        scores: Tensor = self.head(hidden[rows, last_token])
        return scores

    def lora_parameters(self) -> list[nn.Parameter]:
        """The adapter's tensors."""
        return self.bank.parameters_of(self.adapter)


class ValueModel:
    """The critic: an adapter and a head that say what reward is still to come."""

    def __init__(self, base: BaseModel, bank: LoraBank, adapter: str, head: ScalarHead) -> None:
        self.base = base
        self.bank = bank
        self.adapter = adapter
        self.head = head.to(base.device)

    def values(self, token_ids: Tensor, predicts_response: Tensor) -> Tensor:
        """Values of the states that response tokens were drawn from, (N,) float32.

        Args:
            token_ids: (B, L) right-padded.
            predicts_response: (B, L) bool.
        """
        hidden = Policy(self.base, self.bank, self.adapter).hidden_states(token_ids)
        values: Tensor = self.head(hidden[predicts_response])
        return values

    def parameters(self) -> list[nn.Parameter]:
        """The trainable tensors, adapter first."""
        return [*self.bank.parameters_of(self.adapter), *self.head.parameters()]
