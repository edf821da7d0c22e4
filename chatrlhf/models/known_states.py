"""Hidden states of replies under a frozen adapter, kept for other adapters of equal weights.

PPO begins with adapters that are often copies of each other: where a reward model is heads on the
adapter that the policy starts from, the reference, the reward model and the critic's lower half all
read the states of one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class States(NamedTuple):
    """Final and middle hidden states, (L, H) each, or (B, L, H) of a batch."""

    final: Tensor
    middle: Tensor


class KnownStates:
    """States of token sequences under one adapter, that of ``adapter``, None for the bare base."""

    def __init__(self, adapter: str | None) -> None:
        self.adapter = adapter
        self._rows: dict[tuple[int, ...], States] = {}
        self._batches: dict[tuple[tuple[int, ...], ...], States] = {}

    def keep(self, token_ids: Tensor, lengths: Sequence[int], states: States) -> None:
        """Keep the states of a right-padded batch (B, L) whose rows have these lengths."""
        ids = token_ids.tolist()
        self._batches[tuple(map(tuple, ids))] = states
        for place, (row, length) in enumerate(zip(ids, lengths, strict=True)):
            parts = (part[place, :length] for part in states)
            self._rows[tuple(row[:length])] = States(*parts)

    def of_row(self, token_ids: Sequence[int]) -> States | None:
        """States of a sequence, if they are known."""
        return self._rows.get(tuple(token_ids))

    def of_batch(self, token_ids: Tensor) -> States | None:
        """States of a whole padded batch (B, L), if that very batch was kept."""
        return self._batches.get(tuple(map(tuple, token_ids.tolist())))
