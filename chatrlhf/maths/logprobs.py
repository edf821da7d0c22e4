"""Log-probabilities and entropies of chosen tokens without ever storing (N, V) logits.

Notation: N positions, H hidden size, V vocabulary size. ``logit = cap(h W^T) / temperature`` with
``cap(x) = c tanh(x / c)`` where a model has a final soft cap, else the identity.

    d logprob / d logit_v = 1[v = target] - p_v
    d entropy / d logit_v = -p_v (log p_v + entropy)

The vocabulary is walked in blocks that stay in the processor's cache: the forward pass keeps a
running log-sum-exp, the backward pass makes each block of logits again (Wijmans et al. 2024, "Cut
Your Losses in Large-Vocabulary Language Models", section 4, here in plain torch and with the
entropy). Each block of the LM head is read once a pass, however many positions there are. The LM
head is frozen, so only the gradient of ``h`` is needed. The exponentials that fit into a fixed
buffer are kept instead of being made again: as p = exp(logit - largest) / total, the backward pass
of such a block is a single product, and the rows are scaled after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from chatrlhf.maths.softmax_sums import SoftmaxSums
from chatrlhf.native import training as native

# Logits held at once; 4 MiB in float32 measured fastest on two cores (docs/decisions.md).
BLOCK_LOGITS = 1 << 20
_LEAST_BLOCK_TOKENS = 1024
# Exponentials of the first blocks that wait for the backward pass, in the LM head's own type; the
# others are made again. Fixed, so that memory does not grow with the positions.
KEPT_BYTES = 128 << 20
# Logit of a token that is never sampled. Its probability is exactly zero, and unlike minus
# infinity it survives 0 * log 0.
SUPPRESSED_LOGIT = -1e30


class TokenStatistics(NamedTuple):
    """Per position: log-probability of the target and entropy of the distribution, both (N,)."""

    logprobs: Tensor
    entropies: Tensor


class _Head(NamedTuple):
    """What turns hidden states into logits."""

    weight: Tensor
    bias: Tensor | None
    temperature: float
    softcap: float | None
    suppressed: tuple[slice, ...]


def token_statistics(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    softcap: float | None = None,
    head_bias: Tensor | None = None,
    suppressed: Sequence[slice] = (),
) -> TokenStatistics:
    """Log-probability of each target token and the entropy at its position, float32.

    Args:
        hidden: (N, H) final hidden states of the positions that predict the targets.
        head_weight: (V, H) frozen LM head.
        targets: (N,) token ids.
        temperature: the logits are divided by it, as they were when sampling.
        softcap: final logit soft cap of the model, if it has one.
        head_bias: (V,) bias of the LM head, if it has one.
        suppressed: runs of tokens that are never sampled; no target is one of them.
    """
    head = _Head(head_weight, head_bias, temperature, softcap, tuple(suppressed))
    apply: Callable[..., tuple[Tensor, Tensor]] = _TokenStatistics.apply
    return TokenStatistics(*apply(hidden, targets, head))


def _block_tokens(positions: int) -> int:
    return max(BLOCK_LOGITS // max(positions, 1), _LEAST_BLOCK_TOKENS)


def _blocks(head: _Head, positions: int) -> Iterator[slice]:
    size = _block_tokens(positions)
    vocabulary = head.weight.shape[0]
    for start in range(0, vocabulary, size):
        yield slice(start, min(start + size, vocabulary))


class _Scratch:
    """Buffers that every block uses again: a fresh one costs a page fault every 4 KiB."""

    def __init__(self, head: _Head, positions: int) -> None:
        self._size = positions * min(_block_tokens(positions), head.weight.shape[0])
        self._buffers: dict[str, Tensor] = {}

    def raw(self, hidden: Tensor, head: _Head, block: slice) -> Tensor:
        """The LM head on a block, (N, block) in its own type."""
        weight = head.weight[block]
        raw = self._buffer("raw", weight, (hidden.shape[0], weight.shape[0]))
        if head.bias is None:
            return torch.mm(hidden, weight.t(), out=raw)
        return torch.addmm(head.bias[block], hidden, weight.t(), out=raw)

    def widened(self, raw: Tensor) -> Tensor:
        """A copy in float32."""
        return self._buffer("logits", raw, raw.shape, torch.float32).copy_(raw)

    def like(self, logits: Tensor) -> Tensor:
        """Another buffer of the shape of a block."""
        return self._buffer("other", logits, logits.shape)

    def _buffer(
        self, name: str, like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None
    ) -> Tensor:
        if name not in self._buffers:
            self._buffers[name] = like.new_empty(self._size, dtype=dtype or like.dtype)
        return self._buffers[name][: math.prod(shape)].view(*shape)


def _finished(logits: Tensor, head: _Head, block: slice) -> tuple[Tensor, Tensor | None]:
    """What is sampled from, and the slope of the soft cap where there is one.

    Logits of a block after soft cap and temperature, without the suppressed ones.
    """
    slope = None
    if head.softcap is not None:
        capped = torch.tanh(logits / head.softcap)
        logits, slope = capped * head.softcap, 1.0 - capped.square()
    if head.temperature != 1.0:
        logits = logits.div_(head.temperature)
    return _suppress(logits, head, block), slope


def _suppress(logits: Tensor, head: _Head, block: slice) -> Tensor:
    """The logits of a block, in place, with those of tokens that are never sampled far below."""
    for run in head.suppressed:
        if run.start < block.stop and block.start < run.stop:
            inside = slice(max(run.start - block.start, 0), run.stop - block.start)
            logits[:, inside] = SUPPRESSED_LOGIT
    return logits


class _Kept(NamedTuple):
    """A block that waits for the backward pass: exp(logit - largest so far), in the head's type."""

    exponentials: Tensor
    largest: Tensor


class _TokenStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: _Head) -> tuple[Tensor, Tensor]:
        compute = hidden.to(head.weight.dtype)
        count = hidden.shape[0]
        sums = SoftmaxSums(count, hidden.device)
        chosen = torch.zeros_like(sums.total)
        kept: list[_Kept] = []
        # The soft cap's slope needs the logits themselves.
        keeps = ctx.needs_input_grad[0] and head.softcap is None
        room = KEPT_BYTES if keeps else 0
        in_one_pass = native.fits(head.weight) and head.softcap is None
        scratch = _Scratch(head, count)
        for block in _blocks(head, count):
            raw = scratch.raw(compute, head, block)
            room -= raw.nbytes
            keep = torch.empty_like(raw) if room >= 0 else None
            if in_one_pass:
                logits = _suppress(raw, head, block)
            else:
                logits, _ = _finished(scratch.widened(raw), head, block)
            inside = (targets >= block.start) & (targets < block.stop)
            local = (targets - block.start).clamp_(0, block.stop - block.start - 1)
            of_target = logits.gather(-1, local[:, None])[:, 0].float()
            if in_one_pass:
                of_target = of_target / head.temperature
                sums.add_raw(raw, head.temperature, keep)
            else:
                sums.add(logits, scratch.like(logits), keep)
            chosen = torch.where(inside, of_target, chosen)
            if keep is not None:
                kept.append(_Kept(keep, sums.largest))
        normaliser, entropies = sums.softmax()
        ctx.save_for_backward(hidden, targets, normaliser, entropies)
        ctx.head, ctx.kept = head, kept
        return chosen - normaliser, entropies

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropies: Tensor | None
    ) -> tuple[Tensor, None, None]:
        hidden, _, normaliser, entropies = ctx.saved_tensors
        head: _Head = ctx.head
        compute = hidden.to(head.weight.dtype)
        if grad_logprobs is None:
            grad_logprobs = torch.zeros_like(normaliser)
        with_entropy = grad_entropies is not None and bool(grad_entropies.any())
        grad_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        scratch = None
        for number, block in enumerate(_blocks(head, hidden.shape[0])):
            weight = head.weight[block]
            if number < len(ctx.kept) and not with_entropy:
                kept = ctx.kept[number]
                of_rows = grad_logprobs * (kept.largest - normaliser).exp()
                grad_hidden.sub_((kept.exponentials @ weight).float().mul_(of_rows[:, None]))
                continue
            scratch = _Scratch(head, hidden.shape[0]) if scratch is None else scratch
            raw = scratch.raw(compute, head, block)
            logits, slope = _finished(scratch.widened(raw), head, block)
            log_p = logits.sub_(normaliser[:, None])
            # p, scaled in place into the gradient of the logits
            grad = torch.exp(log_p, out=scratch.like(log_p))
            if with_entropy and grad_entropies is not None:
                factor = log_p.add_(entropies[:, None]).mul_(-grad_entropies[:, None])
                grad.mul_(factor.sub_(grad_logprobs[:, None]))
            else:
                grad.mul_(-grad_logprobs[:, None])
            if slope is not None:
                grad.mul_(slope)
            grad_hidden += grad.to(weight.dtype) @ weight
        return _with_targets(ctx, grad_hidden, compute, grad_logprobs), None, None


def _with_targets(ctx: Any, grad_hidden: Tensor, compute: Tensor, grad_logprobs: Tensor) -> Tensor:
    """Add what flows through the logits of the targets, and undo the temperature."""
    hidden, targets, _, _ = ctx.saved_tensors
    head: _Head = ctx.head
    rows = head.weight[targets].float()
    slope = grad_logprobs
    if head.softcap is not None:
        raw = torch.linalg.vecdot(compute.float(), rows)
        if head.bias is not None:
            raw = raw + head.bias[targets].float()
        slope = slope * (1.0 - torch.tanh(raw / head.softcap).square())
    grad_hidden = grad_hidden.addcmul_(rows, slope[:, None]).div_(head.temperature)
    return grad_hidden.to(hidden.dtype)
