"""Causal attention for training on a CPU: torch's forward pass, a backward pass by plain products.

torch's own backward kernel for CPUs took six times as long as four batched products of the same
sizes (docs/decisions.md). Nothing changes in the forward pass, so what is sampled, measured and
updated agrees as before.

    O = P V,  P = softmax(s Q K^T + causal mask)
    dV = P^T dO;  dS = P * (dO V^T - rowsum(dO * O)) s;  dQ = dS K;  dK = dS^T Q

Notation: B rows, T positions, H query heads, K key heads, D head size; G = H / K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

IMPLEMENTATION = "sdpa_with_plain_backward"
# The backward pass holds G T x T scores a row and key head; longer rows take torch's kernel.
LONGEST = 256


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output: Tensor
        output, log_sum = kernel(query, key, value, 0.0, is_causal=True, scale=scale)
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, output, log_sum = ctx.saved_tensors
        rows, heads, length, size = query.shape
        groups = rows * key.shape[1]  # B K, each with G T queries

        def packed(tensor: Tensor) -> Tensor:
            return tensor.reshape(groups, -1, size)

        q, k, v, of_output = packed(query), packed(key), packed(value), packed(grad)
        shape = groups, -1, length, length
        scores = torch.bmm(q, k.mT).float().mul_(ctx.scale).view(shape)
        p = scores.sub_(log_sum.reshape(groups, -1, length, 1)).exp_().tril_()
        along = (grad.float() * output).sum(-1).reshape(groups, -1, length, 1)
        of_p = torch.bmm(of_output, v.mT).float().view(shape)
        of_scores = of_p.sub_(along).mul_(p).mul_(ctx.scale)
        s = of_scores.to(query.dtype).view(groups, -1, length)
        p = p.to(query.dtype).view(groups, -1, length)
        return (
            torch.bmm(s, k).view(rows, heads, length, size),
            torch.bmm(s.mT, q).view(key.shape),
            torch.bmm(p.mT, of_output).view(value.shape),
            None,
        )


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of ``query`` (B, H, T, D) over ``key``, ``value`` (B, K, T, D), (B, H, T, D)."""
    apply: Callable[..., Tensor] = _CausalAttention.apply
    return apply(query, key, value, scale)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls; output (B, T, H, D).

    With and without gradients alike, so that PPO's first ratio is 1.
    """
    plain = (
        not torch.is_inference_mode_enabled()
        and attention_mask is None
        and dropout == 0.0
        and query.shape[2] == key.shape[2] <= LONGEST
        and key.shape == value.shape
        and getattr(module, "is_causal", False)
        and rest.get("is_causal") in (None, True)
        and not any(rest.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    )
    if not plain:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **rest
        )
        return found
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return causal_attention(query, key, value, scale).transpose(1, 2).contiguous(), None


def use_plain_backward(model: Any) -> bool:
    """Let a model that attends by torch's kernel on a CPU train as above; False if it does not."""
    return attend_by(model, IMPLEMENTATION, _attention)


def attend_by(model: Any, name: str, attention: Callable[..., Any]) -> bool:
    """Let a model that attends by torch's kernel attend by ``attention``; False if it does not."""
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa":
        return False
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, sdpa_mask)
    config._attn_implementation = name
    return True
