"""Draw tokens from logits: exact top-k and top-p, one uniform number a row and step.

Notation: B rows, V tokens of the vocabulary, T temperature.

``torch.multinomial`` over a large vocabulary costs several milliseconds a row. Here a token is
found by inverting the cumulative distribution in two levels: sums of blocks first, then the one
block that the uniform number falls into. Kept tokens stand in the order of the vocabulary, so
the token is the first one whose cumulative mass exceeds ``u * total``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chatrlhf.engine.requests import Sampling
from chatrlhf.errors import ModelError

_BLOCK = 512
# How far below the most probable token (in nats) candidates of top-p are first looked for.
_NUCLEUS_DEPTHS = (4.0, 8.0, 12.0)
_DRAWS = 256
_WORDS_PER_COUNTER = 4


class RowGenerator:
    """Uniform numbers of one row: a function of ``(seed, row, step)``, of nothing else.

    Counter-based (Philox 4x64), so a row draws the same numbers alone or in any batch.
    """

    def __init__(self, seed: int, row: int) -> None:
        mask = (1 << 64) - 1
        self._key = (seed & mask) | ((row & mask) << 64)
        self._chunk = -1
        self._draws: list[float] = []

    def uniform(self, step: int) -> float:
        """The number in [0, 1) of this step."""
        chunk, offset = divmod(step, _DRAWS)
        if chunk != self._chunk:
            counter = chunk * (_DRAWS // _WORDS_PER_COUNTER)
            words = np.random.Philox(key=self._key, counter=counter).random_raw(_DRAWS)
            self._draws = ((words >> np.uint64(11)) * 2.0**-53).tolist()
            self._chunk = chunk
        return self._draws[offset]


def uniforms_at(generators: Sequence[RowGenerator], step: int) -> Tensor:
    """Uniform numbers of all rows at one step: (B,) float64."""
    return torch.tensor([row.uniform(step) for row in generators], dtype=torch.float64)


def sample(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logits: (B, V) float32.
        sampling: temperature 0 takes the most probable token; top-k is applied before top-p,
            as everywhere. Tokens tied with the k-th are kept; top-p keeps the shortest run of
            tokens, most probable first and lower id first, whose mass reaches ``top_p``.
        uniforms: (B,) float64 in [0, 1).

    Returns:
        Token ids (B,) int64, and their log-probabilities (B,) float32 under the whole
        distribution at this temperature, before top-k and top-p (temperature 1 when greedy).

    Raises:
        ModelError: a row's logits are not numbers.
    """
    temperature = sampling.temperature or 1.0
    scaled = logits - logits.amax(-1, keepdim=True)  # (B, V)
    if temperature != 1.0:
        scaled.div_(temperature)
    weights = scaled.exp()  # (B, V), the most probable token has 1
    block_sums = _block_sums(weights)
    log_totals = block_sums.sum(-1).log()  # (B,) float64
    if not bool(torch.isfinite(log_totals).all()):
        raise ModelError(
            "The model answered with values that are not numbers. Choose another version."
        )
    if sampling.temperature == 0.0:
        token_ids = logits.argmax(-1)
    else:
        uniforms = uniforms.to(logits.device)
        if 0 < sampling.top_k < logits.shape[-1]:
            kth = _kth_largest(logits, sampling.top_k)
            weights = weights.masked_fill_(logits < kth, 0.0)
            block_sums = _block_sums(weights)
        if sampling.top_p < 1.0:
            token_ids = _sample_nucleus(weights, block_sums, sampling.top_p, uniforms)
        else:
            token_ids = _invert(weights, block_sums, uniforms)
    chosen = scaled.gather(-1, token_ids[:, None])[:, 0]
    return token_ids, (chosen.double() - log_totals).float()


def nucleus(weights: Tensor, total: float, top_p: float) -> Tensor:
    """Ids of the tokens that top-p keeps, ascending.

    Args:
        weights: (V,) probabilities up to a factor, the greatest is 1.
        total: their sum.
        top_p: mass to keep, below 1.
    """
    wanted = top_p * total
    for depth in (*_NUCLEUS_DEPTHS, math.inf):
        # Tokens below the threshold are all less probable than every candidate.
        ids = (weights >= math.exp(-depth)).nonzero()[:, 0]
        candidates = weights[ids]
        if depth == math.inf or float(candidates.sum(dtype=torch.float64)) >= wanted:
            break
    ordered, order = candidates.sort(descending=True, stable=True)
    before = ordered.double().cumsum(0).sub_(ordered)  # mass of the more probable ones
    count = max(int((before < wanted).sum()), 1)
    return ids[order[:count]].sort().values


def _sample_nucleus(weights: Tensor, block_sums: Tensor, top_p: float, uniforms: Tensor) -> Tensor:
    chosen = []
    for row, total, uniform in zip(
        weights, block_sums.sum(-1).tolist(), uniforms.tolist(), strict=True
    ):
        kept = nucleus(row, total, top_p)
        cumulative = row[kept].double().cumsum(0)
        target = _below(cumulative[-1:] * uniform, cumulative[-1:])
        chosen.append(kept[torch.searchsorted(cumulative, target, right=True)])
    return torch.cat(chosen)


def _invert(weights: Tensor, block_sums: Tensor, uniforms: Tensor) -> Tensor:
    """The first token of each row whose cumulative weight exceeds ``u * total``: (B,)."""
    cumulative = block_sums.cumsum(-1)  # (B, blocks) float64
    total = cumulative[:, -1:]
    target = _below(uniforms[:, None] * total, total)
    block = torch.searchsorted(cumulative, target, right=True)  # (B, 1)
    before = cumulative.gather(-1, block) - block_sums.gather(-1, block)
    columns = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)  # (B, _BLOCK)
    inside = weights.gather(-1, columns.clamp_(max=weights.shape[-1] - 1)).double()
    inside.masked_fill_(columns < block * _BLOCK, 0.0)
    local = inside.cumsum(-1)
    local_target = _below((target - before).clamp_(min=0.0), local[:, -1:])
    offset = torch.searchsorted(local, local_target, right=True)
    return (block * _BLOCK + offset)[:, 0]


def _below(target: Tensor, total: Tensor) -> Tensor:
    """Keep a target under its total where rounding lifted it to it."""
    return torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))


def _block_sums(weights: Tensor) -> Tensor:
    """Sums of blocks of the vocabulary: (B, ceil(V / _BLOCK)) float64."""
    rows, width = weights.shape
    if width % _BLOCK:
        weights = F.pad(weights, (0, -width % _BLOCK))
    # Inside a block, float32 pairwise summation is exact to about 1e-7 of the block.
    return weights.view(rows, -1, _BLOCK).sum(-1).double()


def _kth_largest(logits: Tensor, k: int) -> Tensor:
    """The k-th largest value of each row: (B, 1)."""
    rows, width = logits.shape
    padded = logits
    if width % _BLOCK:
        padded = F.pad(logits, (0, -width % _BLOCK), value=-math.inf)
    blocks = padded.view(rows, -1, _BLOCK)
    if k < blocks.shape[1]:
        # The k largest values lie in the k blocks with the largest maxima, or tie with them.
        best = blocks.amax(-1).topk(k, dim=-1, sorted=False).indices
        padded = blocks.gather(1, best[..., None].expand(-1, -1, _BLOCK)).reshape(rows, -1)
    return padded.topk(k, dim=-1).values[:, -1:]
