"""Scalar heads beside an adapter: the reward model and the critic.

Notation: B rows, L positions, H hidden size, N response tokens of a batch in row-major order,
D = 3 H pooled features.

Both read, under their own LoRA adapter, the hidden states of the base, h the final ones and m those
of its middle layer, pooled causally:

    phi_t = [ h_t ;  mean of m over the response tokens up to t ;  sum of h over them ]

The reward model reads phi at the last real token of a reply; the critic reads it at each position
that a response token is drawn from, so it starts as an exact copy of the reward model, adapter and
head. The last state alone, the usual choice, learns little from tens of rankings
(docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from chatrlhf.errors import VersionError
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.middle_layer import (
    layers_above_middle,
    layers_up_to_middle,
    lower_half,
    middle_states,
    upper_half,
)
from chatrlhf.models.policy import Policy

TokensAndFlags = tuple[Sequence[int], Sequence[bool]]
POOLS = 3
# How large standardised features of each pool are. A ridge binds small ones more: with few rankings
# the last state misleads (docs/decisions.md).
POOL_SIZES = (0.3, 1.0, 1.0)
# Keeps the sum near the size of the other features for replies of ordinary length.
_SUM_SCALE = 0.01


def pooled_features(hidden: Tensor, middle: Tensor, is_response_token: Tensor) -> Tensor:
    """Causal features of every position, (B, L, D) float32.

    Args:
        hidden: (B, L, H) final hidden states.
        middle: (B, L, H) those of the middle layer.
        is_response_token: (B, L) bool.
    """
    mask = is_response_token[..., None]
    count = mask.cumsum(1).clamp(min=1)
    hidden, middle = hidden.float(), middle.float()
    mean = torch.where(mask, middle, 0.0).cumsum(1) / count
    total = torch.where(mask, hidden, 0.0).cumsum(1)
    return torch.cat([hidden, mean, total * _SUM_SCALE], dim=-1)


class ScalarHead(nn.Module):
    """A linear map of standardised features to one number.

    ``score = w ((x - feature_mean) * feature_scale) + b``. The feature statistics are set from the
    replies of a fit and do not train. Weights start at zero.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        size = POOLS * hidden_size
        self.weight = nn.Parameter(torch.zeros(size))
        self.bias = nn.Parameter(torch.zeros(()))
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.register_buffer("feature_mean", torch.zeros(size))
        self.register_buffer("feature_scale", torch.ones(size))

    def forward(self, features: Tensor) -> Tensor:
        """Scores of pooled features, (..., D) -> (...) float32."""
        standardised = (features.float() - self.feature_mean) * self.feature_scale
        return standardised @ self.weight + self.bias

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors on the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors in; nothing is copied unless all of it fits.

        Raises:
            VersionError: a tensor is missing, unknown, of another shape, or not finite.
        """
        for key, tensor in state.items():
            if not bool(torch.isfinite(tensor).all()):
                raise VersionError(f"The scalar head's {key} holds values that are not finite.")
        own = {key: tuple(tensor.shape) for key, tensor in self.state_dict().items()}
        given = {key: tuple(tensor.shape) for key, tensor in state.items()}
        if own != given:
            raise VersionError(
                f"The scalar head does not fit this base: it has {given}, and {own} are needed."
            )
        self.load_state_dict(dict(state))


class RewardModel:
    """An adapter and a head that score whole replies."""

    def __init__(
        self, base: BaseModel, bank: LoraBank, adapter: str | None, head: ScalarHead
    ) -> None:
        self.base = base
        self.bank = bank
        self.adapter = adapter
        self.head = head.to(base.device)

    def features(self, token_ids: Tensor, is_response_token: Tensor, last_token: Tensor) -> Tensor:
        """Pooled features of right-padded conversations at their last token, (B, D).

        Args:
            token_ids: (B, L).
            is_response_token: (B, L) bool.
            last_token: (B,) position of the last real token.
        """
        pooled = self.pooled(token_ids, is_response_token)
        rows = torch.arange(len(token_ids), device=pooled.device)
        return pooled[rows, last_token]

    def pooled(self, token_ids: Tensor, is_response_token: Tensor) -> Tensor:
        """Pooled features of every position, (B, L, D); arguments as of ``features``."""
        return _pooled(self.base, self.bank, self.adapter, token_ids, is_response_token)

    def known_features(self, rows: Sequence[TokensAndFlags]) -> Tensor | None:
        """Pooled features of replies whose states are known under these weights, (B, D).

        None if those of any are not. Rows are token ids and which of them are response.
        """
        known = self.bank.known
        if known is None or not self.bank.are_equal(known.adapter, self.adapter):
            return None
        found: list[Tensor] = []
        for token_ids, is_response in rows:
            states = known.of_row(token_ids)
            if states is None:
                return None
            flags = torch.tensor([is_response], device=states.final.device)
            found.append(pooled_features(states.final[None], states.middle[None], flags)[0, -1])
        return torch.stack(found)

    def scores(self, token_ids: Tensor, is_response_token: Tensor, last_token: Tensor) -> Tensor:
        """Scores of right-padded conversations, (B,) float32; arguments as of ``features``."""
        scores: Tensor = self.head(self.features(token_ids, is_response_token, last_token))
        return scores

    def lora_parameters(self) -> list[nn.Parameter]:
        """The adapter's tensors."""
        return [] if self.adapter is None else self.bank.parameters_of(self.adapter)


class ValueModel:
    """The critic: an adapter and a head that say what reward is still to come.

    Only the adapter's layers above the middle train, unless ``whole``: what lies below is the same
    in every epoch and is computed once (docs/decisions.md).
    """

    def __init__(
        self,
        base: BaseModel,
        bank: LoraBank,
        adapter: str,
        head: ScalarHead,
        *,
        whole: bool = False,
    ) -> None:
        self.base = base
        self.bank = bank
        self.adapter = adapter
        self.head = head.to(base.device)
        self.whole = whole

    @torch.no_grad()
    def trunk(self, token_ids: Tensor) -> Tensor | None:
        """Output of the middle layer for right-padded tokens, (B, L, H); None if all layers train.

        It changes only with the adapter's lower half, which does not train.
        """
        if self.whole:
            return None
        known = self.bank.known
        if known is not None and self.bank.are_equal(
            known.adapter, self.adapter, layers_up_to_middle(self.base)
        ):
            states = known.of_batch(token_ids)
            if states is not None:
                return states.middle
        with middle_states(self.base) as middle, lower_half(self.base):
            Policy(self.base, self.bank, self.adapter).hidden_states(token_ids)
        return middle[-1]

    def values(
        self,
        token_ids: Tensor,
        is_response_token: Tensor,
        predicts_response: Tensor,
        trunk: Tensor | None = None,
    ) -> Tensor:
        """Values of the states that response tokens were drawn from, (N,) float32.

        Args:
            token_ids: (B, L) right-padded.
            is_response_token: (B, L) bool.
            predicts_response: (B, L) bool, True where the next token is a response token.
            trunk: ``trunk(token_ids)``; without it all layers run.
        """
        scope = nullcontext() if trunk is None else upper_half(self.base, trunk)
        with scope:
            pooled = _pooled(self.base, self.bank, self.adapter, token_ids, is_response_token)
        values: Tensor = self.head(pooled[predicts_response])
        return values

    def parameters(self) -> list[nn.Parameter]:
        """The trainable tensors, adapter first."""
        inside = None if self.whole else layers_above_middle(self.base)
        return [*self.bank.parameters_of(self.adapter, inside), *self.head.parameters()]


def _pooled(
    base: BaseModel,
    bank: LoraBank,
    adapter: str | None,
    token_ids: Tensor,
    is_response_token: Tensor,
) -> Tensor:
    """Features of every position of right-padded tokens (B, L), under an adapter, (B, L, D)."""
    with middle_states(base) as middle:
        hidden = Policy(base, bank, adapter).hidden_states(token_ids)
    return pooled_features(hidden, middle[-1], is_response_token)
