"""The PPO objective: clipped policy loss, clipped value loss, entropy, and KL estimates.

Notation: B rows, T response positions; every mean is over the True positions of
``is_response_token`` (B, T).

    loss = policy_loss + c_v value_loss - c_e entropy          Schulman et al. 2017, equation 9
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from chatrlhf.maths.masked import masked_mean


class PolicyLoss(NamedTuple):
    """The clipped surrogate, negated, and how far the policy moved (scalars)."""

    loss: Tensor
    clip_fraction: Tensor
    approx_kl: Tensor


class ValueLoss(NamedTuple):
    """Half the clipped squared error of the critic, and how often the clip acted (scalars)."""

    loss: Tensor
    clip_fraction: Tensor


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    is_response_token: Tensor,
    clip_range: float,
) -> PolicyLoss:
    """Negated clipped surrogate, Schulman et al. 2017, equation 7. Arguments are (B, T)."""
    log_ratio = torch.where(is_response_token, logprobs - old_logprobs, torch.zeros_like(logprobs))
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    loss = masked_mean(torch.maximum(unclipped, clipped), is_response_token)
    with torch.no_grad():
        clip_fraction = masked_mean((clipped > unclipped).float(), is_response_token)
        approx_kl = masked_mean(kl_k3(logprobs, old_logprobs), is_response_token)
    return PolicyLoss(loss, clip_fraction, approx_kl)


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    is_response_token: Tensor,
    clip_range: float,
) -> ValueLoss:
    """Half the larger of the squared errors of the value and of the clipped value.

    The clip keeps the critic within ``clip_range`` of what it said when the batch was collected
    (OpenAI baselines, ppo2, commit ea25b9e, ``model.py`` line 68).
    """
    # Not old + (values - old).clamp(): rounded, that counts as clipped where nothing was.
    clipped_values = values.clamp(old_values - clip_range, old_values + clip_range)
    unclipped = (values - returns).square()
    clipped = (clipped_values - returns).square()
    loss = 0.5 * masked_mean(torch.maximum(unclipped, clipped), is_response_token)
    with torch.no_grad():
        clip_fraction = masked_mean((clipped > unclipped).float(), is_response_token)
    return ValueLoss(loss, clip_fraction)


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Unbiased estimate of KL(pi, ref) per token for samples of pi; may be negative. (B, T)."""
    return logprobs - reference_logprobs


def kl_k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Half the squared log ratio: biased, low variance, right gradient. (B, T)."""
    return 0.5 * (logprobs - reference_logprobs).square()


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """exp(d) - 1 - d with d = log ref - log pi: unbiased and never negative. (B, T).

    John Schulman, "Approximating KL Divergence", 2020.
    """
    difference = reference_logprobs - logprobs
    return torch.expm1(difference) - difference


def adapted_kl_coefficient(
    coefficient: float, observed_kl: float, target_kl: float, samples: int, horizon: int
) -> float:
    """The proportional controller of Ziegler et al. 2019, section 2.2; the error is cut to 0.2.

    Args:
        coefficient: beta now.
        observed_kl: sequence-summed KL of the batch, in nats.
        target_kl: wanted sequence KL, in nats.
        samples: replies in the batch.
        horizon: samples over which the controller acts.
    """
    error = min(max(observed_kl / target_kl - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + error * samples / horizon)


def explained_variance(values: Tensor, returns: Tensor, is_response_token: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over real tokens; 1 is a perfect critic."""
    returns = returns[is_response_token]
    residual = returns - values[is_response_token]
    if returns.numel() < 2:
        return values.new_zeros(())
    return 1.0 - residual.var() / returns.var().clamp(min=1e-8)
