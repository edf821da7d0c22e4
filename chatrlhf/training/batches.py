"""Sequences of tokens as right-padded batches, and which of their tokens are response.

Notation: B rows, L positions, N response tokens of the whole batch in row-major order. Causal
attention never looks to the right, so right padding needs no attention mask.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenSequence:
    """A conversation as tokens; ``is_response[i]``: was token i spoken by the model."""

    token_ids: tuple[int, ...]
    is_response: tuple[bool, ...]

    @classmethod
    def of_reply(cls, prompt: Sequence[int], response: Sequence[int]) -> TokenSequence:
        """A prompt followed by one response."""
        flags = (False,) * len(prompt) + (True,) * len(response)
        return cls(tuple(prompt) + tuple(response), flags)

    def __len__(self) -> int:
        return len(self.token_ids)

    def shortened(self, max_tokens: int) -> TokenSequence | None:
        """The first ``max_tokens`` tokens; None when no response token is left to predict."""
        short = self
        if len(self) > max_tokens:
            short = TokenSequence(self.token_ids[:max_tokens], self.is_response[:max_tokens])
        return short if any(short.is_response[1:]) else None


@dataclass(frozen=True)
class SequenceBatch:
    """Right-padded token ids (B, L), real tokens (B, L) and response tokens (B, L), both bool."""

    token_ids: Tensor
    is_token: Tensor
    is_response_token: Tensor

    @property
    def targets(self) -> Tensor:
        """The response tokens, (N,)."""
        return self.token_ids[:, 1:][self.is_response_token[:, 1:]]

    @property
    def predicts_response(self) -> Tensor:
        """True where the next token is a response token, (B, L)."""
        shifted = torch.zeros_like(self.is_response_token)
        shifted[:, :-1] = self.is_response_token[:, 1:]
        return shifted

    @property
    def last_token(self) -> Tensor:
        """Position of the last real token of each row, (B,)."""
        return self.is_token.sum(-1) - 1


def make_batch(
    sequences: Sequence[TokenSequence], pad_token_id: int, device: torch.device | str = "cpu"
) -> SequenceBatch:
    """Right-pad sequences to the longest. The pad token is carried by masks, never inferred."""
    length = max(len(sequence) for sequence in sequences)
    token_ids = torch.full((len(sequences), length), pad_token_id, dtype=torch.long)
    is_token = torch.zeros(len(sequences), length, dtype=torch.bool)
    is_response = torch.zeros_like(is_token)
    for row, sequence in enumerate(sequences):
        token_ids[row, : len(sequence)] = torch.tensor(sequence.token_ids)
        is_token[row, : len(sequence)] = True
        is_response[row, : len(sequence)] = torch.tensor(sequence.is_response)
    return SequenceBatch(token_ids.to(device), is_token.to(device), is_response.to(device))


def batches_by_length(
    lengths: Sequence[int], batch_size: int, generator: random.Random
) -> Iterator[list[int]]:
    """Indices in batches of similar length, in random order; every index once.

    Sorting inside windows of eight batches keeps padding small and the order random.
    """
    order = list(range(len(lengths)))
    generator.shuffle(order)
    window = batch_size * 8
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda index: lengths[index])
        batches += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    generator.shuffle(batches)
    yield from batches
