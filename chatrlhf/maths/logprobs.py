"""Log-probabilities and entropies of chosen tokens without ever storing (N, V) logits.

Notation: N positions, H hidden size, V vocabulary size. ``logit = cap(h W^T) / temperature`` with
``cap(x) = c tanh(x / c)`` where a model has a final soft cap, else the identity.

    d logprob / d logit_v = 1[v = target] - p_v
    d entropy / d logit_v = -p_v (log p_v + entropy)

The vocabulary is walked in blocks that stay in the processor's cache: the forward pass keeps a
running log-sum-exp, the backward pass makes each block of logits again (Wijmans et al. 2024, "Cut
Your Losses in Large-Vocabulary Language Models", section 4, here in plain torch and with the
entropy). Each block of the LM head is read once a pass, however many positions there are. The LM
head is frozen, so only the gradient of ``h`` is needed. What fits into a fixed buffer is kept
instead of being made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Logits held at once; 4 MiB in float32 measured fastest on two cores (docs/decisions.md).
BLOCK_LOGITS = 1 << 20
_LEAST_BLOCK_TOKENS = 1024
# Logits of the first blocks that wait for the backward pass, in the LM head's own type; the others
# are made again. Fixed, so that memory does not grow with the positions.
KEPT_BYTES = 128 << 20


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


def token_statistics(
    hidden: Tensor,
    head_weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    softcap: float | None = None,
    head_bias: Tensor | None = None,
) -> TokenStatistics:
    """Log-probability of each target token and the entropy at its position, float32.

    Args:
        hidden: (N, H) final hidden states of the positions that predict the targets.
        head_weight: (V, H) frozen LM head.
        targets: (N,) token ids.
        temperature: the logits are divided by it, as they were when sampling.
        softcap: final logit soft cap of the model, if it has one.
        head_bias: (V,) bias of the LM head, if it has one.
    """
    head = _Head(head_weight, head_bias, temperature, softcap)
    apply: Callable[..., tuple[Tensor, Tensor]] = _TokenStatistics.apply
    return TokenStatistics(*apply(hidden, targets, head))


def _blocks(head: _Head, positions: int) -> Iterator[slice]:
    size = max(BLOCK_LOGITS // max(positions, 1), _LEAST_BLOCK_TOKENS)
    vocabulary = head.weight.shape[0]
    for start in range(0, vocabulary, size):
        yield slice(start, min(start + size, vocabulary))


def _raw_logits(hidden: Tensor, head: _Head, block: slice) -> Tensor:
    """The LM head on a block, in its own type: (N, block)."""
    bias = None if head.bias is None else head.bias[block]
    return F.linear(hidden, head.weight[block], bias)


def _logits(raw: Tensor, head: _Head) -> tuple[Tensor, Tensor | None]:
    """Float32 logits of a block (N, block), and the slope of the soft cap where there is one."""
    logits = raw.to(torch.float32, copy=True)
    slope = None
    if head.softcap is not None:
        capped = torch.tanh(logits / head.softcap)
        logits, slope = capped * head.softcap, 1.0 - capped.square()
    if head.temperature != 1.0:
        logits = logits.div_(head.temperature)
    return logits, slope


class _TokenStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: _Head) -> tuple[Tensor, Tensor]:
        compute = hidden.to(head.weight.dtype)
        count = hidden.shape[0]
        largest = hidden.new_full((count,), -math.inf, dtype=torch.float32)
        total = torch.zeros_like(largest)  # sum of exp(logit - largest)
        weighted = torch.zeros_like(largest)  # sum of exp(logit - largest) (logit - largest)
        chosen = torch.zeros_like(largest)
        kept: list[Tensor] = []
        room = KEPT_BYTES if ctx.needs_input_grad[0] else 0
        for block in _blocks(head, count):
            raw = _raw_logits(compute, head, block)
            room -= raw.nbytes
            if room >= 0:
                kept.append(raw)
            logits, _ = _logits(raw, head)
            inside = (targets >= block.start) & (targets < block.stop)
            local = (targets - block.start).clamp_(0, block.stop - block.start - 1)
            chosen = torch.where(inside, logits.gather(-1, local[:, None])[:, 0], chosen)
            before, largest = largest, torch.maximum(largest, logits.amax(-1))
            shrink = (before - largest).exp()
            # exp(-inf) times (-inf) would not be a number in the first block.
            moved = torch.where(total > 0, total * (before - largest), total)
            weighted = shrink * (weighted + moved)
            shifted = logits.sub_(largest[:, None])
            exponentials = shifted.exp()
            total = shrink * total + exponentials.sum(-1)
            weighted = weighted + torch.linalg.vecdot(exponentials, shifted)
        log_total = total.log()
        entropies = log_total - weighted / total
        normaliser = largest + log_total
        ctx.save_for_backward(hidden, targets, normaliser, entropies)
        ctx.head, ctx.kept = head, kept
        return chosen - normaliser, entropies

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropies: Tensor | None
    ) -> tuple[Tensor, None, None]:
        hidden, targets, normaliser, entropies = ctx.saved_tensors
        head: _Head = ctx.head
        compute = hidden.to(head.weight.dtype)
        count = hidden.shape[0]
        grad_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        with_entropy = grad_entropies is not None and bool(grad_entropies.any())
        rows = torch.arange(count, device=hidden.device)
        for number, block in enumerate(_blocks(head, count)):
            is_kept = number < len(ctx.kept)
            raw = ctx.kept[number] if is_kept else _raw_logits(compute, head, block)
            logits, slope = _logits(raw, head)
            log_p = logits.sub_(normaliser[:, None])
            grad = log_p.exp()  # p, scaled in place into the gradient of the logits
            if with_entropy and grad_entropies is not None:
                factor = log_p.add_(entropies[:, None]).mul_(-grad_entropies[:, None])
                if grad_logprobs is not None:
                    factor.sub_(grad_logprobs[:, None])
                grad.mul_(factor)
            elif grad_logprobs is not None:
                grad.mul_(-grad_logprobs[:, None])
            if grad_logprobs is not None:
                inside = (targets >= block.start) & (targets < block.stop)
                at = rows[inside]
                grad[at, targets[inside] - block.start] += grad_logprobs[at]
            if slope is not None:
                grad.mul_(slope)
            if head.temperature != 1.0:
                grad.div_(head.temperature)
            grad_hidden += grad.to(head.weight.dtype) @ head.weight[block]
        return grad_hidden.to(hidden.dtype), None, None
