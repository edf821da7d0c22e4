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

_BLOCK_BITS = 9
_BLOCK = 1 << _BLOCK_BITS
# How far below the most probable token (in nats) candidates of top-p are first looked for.
_NUCLEUS_DEPTHS = (4.0, 8.0, 12.0)
_SORTABLE = 4096
_NARROW = 1.002
_TINY = torch.finfo(torch.float32).tiny
_DRAWS = 256
_WORDS_PER_COUNTER = 4
NOT_NUMBERS = "The model answered with values that are not numbers. Choose another version."


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
    if logits.device.type == "mps":  # has no float64
        logits = logits.cpu()
    temperature = sampling.temperature or 1.0
    probabilities = torch.softmax(logits if temperature == 1.0 else logits / temperature, -1)
    weights = _in_blocks(probabilities)  # (B, blocks, _BLOCK)
    block_sums = _sums(weights)
    log_totals = block_sums.sum(-1).log()  # (B,), near 0: softmax sums in float32
    if not bool(torch.isfinite(log_totals).all()):
        raise ModelError(NOT_NUMBERS)
    if sampling.temperature == 0.0:
        token_ids = logits.argmax(-1)
    else:
        token_ids = _draw(weights, block_sums, logits, sampling, uniforms.to(logits.device))
    chosen = probabilities.gather(-1, token_ids[:, None])[:, 0]
    return token_ids, (chosen.double().log() - log_totals).float()


def most_probable(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The ``top_logprobs`` most probable tokens of each row, best first.

    Returns:
        Token ids (B, n) int64 and log-probabilities (B, n) float32, as ``sample`` gives them.
    """
    best = logits.topk(min(sampling.top_logprobs or 0, logits.shape[-1]), dim=-1)
    temperature = sampling.temperature or 1.0
    normaliser = (logits / temperature).logsumexp(-1, keepdim=True)
    return best.indices, best.values / temperature - normaliser


def nucleus(weights: Tensor, total: float, top_p: float) -> Tensor:
    """Ids of the tokens that top-p keeps, ascending.

    Args:
        weights: (blocks, _BLOCK) probabilities up to a factor, in the order of the vocabulary.
        total: their sum.
        top_p: mass to keep, below 1.
    """
    wanted = top_p * total
    block_peaks = weights.amax(-1)
    peak = float(block_peaks.max())
    for depth in (*_NUCLEUS_DEPTHS, math.inf):
        # Tokens below the threshold are all less probable than every candidate.
        threshold = peak * math.exp(-depth) or _TINY
        blocks = (block_peaks >= threshold).nonzero()[:, 0]
        inside = weights[blocks]
        is_candidate = inside >= threshold
        mass = (inside * is_candidate).sum(-1).sum(dtype=torch.float64)
        if depth == math.inf or float(mass) >= wanted:
            break
    places = is_candidate.view(-1).nonzero()[:, 0]
    candidates = inside.view(-1)[places]
    ids = (blocks[places >> _BLOCK_BITS] << _BLOCK_BITS) | (places & (_BLOCK - 1))
    low, high = threshold, math.inf
    if candidates.numel() > _SORTABLE:
        low, high = _bracket(candidates, threshold, 2.0 * peak, wanted)
    is_kept = candidates >= high
    band = ((candidates >= low) & ~is_kept).nonzero()[:, 0]
    ordered, order = candidates[band].sort(descending=True, stable=True)
    before = ordered.double().cumsum(0).sub_(ordered)  # mass of the more probable tokens
    before += (candidates * is_kept).sum(dtype=torch.float64)
    is_kept[band[order[before < wanted]]] = True
    return ids[is_kept]


def _bracket(candidates: Tensor, low: float, high: float, wanted: float) -> tuple[float, float]:
    """Narrow the probability of the last kept token: too much mass from low on, not from high."""
    while high > _NARROW * low:
        middle = math.sqrt(low * high)
        mass = (candidates * (candidates >= middle)).sum(dtype=torch.float64)
        low, high = (middle, high) if float(mass) >= wanted else (low, middle)
    return low, high


def _draw(
    weights: Tensor, block_sums: Tensor, logits: Tensor, sampling: Sampling, uniforms: Tensor
) -> Tensor:
    if 0 < sampling.top_k < logits.shape[-1]:
        kth = _kth_largest(_in_blocks(logits, -math.inf), sampling.top_k)
        weights = weights * _in_blocks(logits >= kth)
        block_sums = _sums(weights)
    if sampling.top_p < 1.0:
        return _draw_from_nuclei(weights, block_sums, sampling.top_p, uniforms)
    return _invert(weights, block_sums, uniforms)


def _draw_from_nuclei(
    weights: Tensor, block_sums: Tensor, top_p: float, uniforms: Tensor
) -> Tensor:
    chosen = []
    for row, total, uniform in zip(
        weights, block_sums.sum(-1).tolist(), uniforms.tolist(), strict=True
    ):
        kept = nucleus(row, total, top_p)
        cumulative = row.reshape(-1)[kept].double().cumsum(0)
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
    inside = weights.gather(1, block[..., None].expand(-1, -1, _BLOCK))[:, 0]  # (B, _BLOCK)
    local = inside.double().cumsum(-1)
    local_target = _below((target - before).clamp_(min=0.0), local[:, -1:])
    offset = torch.searchsorted(local, local_target, right=True)
    return (block * _BLOCK + offset)[:, 0]


def _below(target: Tensor, total: Tensor) -> Tensor:
    """Keep a target under its total where rounding lifted it to it."""
    return torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))


def _in_blocks(values: Tensor, filling: float = 0.0) -> Tensor:
    """(B, V) as (B, blocks, _BLOCK), filled up at the end."""
    rows, width = values.shape
    if width % _BLOCK:
        values = F.pad(values, (0, -width % _BLOCK), value=filling)
    return values.view(rows, -1, _BLOCK)


def _sums(weights: Tensor) -> Tensor:
    """Sums of blocks, (B, blocks) float64; float32 is exact enough inside a block (1e-7)."""
    return weights.sum(-1).double()


def _kth_largest(blocks: Tensor, k: int) -> Tensor:
    """The k-th largest value of each row of (B, blocks, _BLOCK): (B, 1)."""
    if k < blocks.shape[1]:
        # The k largest values lie in the k blocks with the largest maxima, or tie with them.
        best = blocks.amax(-1).topk(k, dim=-1, sorted=False).indices
        blocks = blocks.gather(1, best[..., None].expand(-1, -1, _BLOCK))
    return blocks.reshape(blocks.shape[0], -1).topk(k, dim=-1).values[:, -1:]
