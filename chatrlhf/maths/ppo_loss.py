"""The PPO objective: clipped policy loss, clipped value loss, entropy, and KL estimates.

Notation: B rows, T response positions; every mean is over the True positions of
``is_response_token`` (B, T).

    loss = policy_loss + c_v value_loss - c_e entropy          Schulman et al. 2017, equation 9

and, where the KL to the reference is a loss and not a part of the reward, + beta kl_loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from chatrlhf.maths.masked import masked_mean


class PolicyLoss(NamedTuple):
    """The clipped surrogate, negated, and how far the policy moved (scalars).

    ``approx_kl`` estimates KL(old, new) per token, in nats; it is never negative.
    """

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
    logprobs, old_logprobs = _zeroed((logprobs, old_logprobs), is_response_token)
    ratio = (logprobs - old_logprobs).exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    loss = masked_mean(torch.maximum(unclipped, clipped), is_response_token)
    with torch.no_grad():
        clip_fraction = masked_mean((clipped > unclipped).float(), is_response_token)
        # The tokens are samples of the old policy.
        approx_kl = masked_mean(kl_k3(old_logprobs, logprobs), is_response_token)
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
    """exp(d) - 1 - d with d = log ref - log pi: unbiased for samples of pi, never negative. (B, T).

    John Schulman, "Approximating KL Divergence", 2020.
    """
    difference = reference_logprobs - logprobs
    return torch.expm1(difference) - difference


def kl_loss_k2(
    logprobs: Tensor, old_logprobs: Tensor, reference_logprobs: Tensor, is_response_token: Tensor
) -> Tensor:
    """k2 as a loss: its expected gradient is that of KL(pi, ref) per token. Arguments are (B, T).

    The gradient of k2 is (log pi - log ref) grad log pi, for samples of pi. The tokens are samples
    of the old policy, hence the weight pi / pi_old, as a constant (Liu et al. 2025, "Rethinking KL
    Regularization in RLHF", arXiv 2510.01555).
    """
    own, old, reference = _zeroed((logprobs, old_logprobs, reference_logprobs), is_response_token)
    weight = (own - old).exp().detach()
    return masked_mean(weight * kl_k2(own, reference), is_response_token)


def kl_loss_k3(
    logprobs: Tensor, old_logprobs: Tensor, reference_logprobs: Tensor, is_response_token: Tensor
) -> Tensor:
    """k3 as a loss: its expected gradient is that of KL(pi, ref) per token. Arguments are (B, T).

    The weight pi / pi_old is differentiated too. Without it, as often seen, the expected gradient
    is that of KL(ref, pi) instead (Tang and Munos 2025, "On a few pitfalls in KL divergence
    gradient estimation for RL", arXiv 2506.09477).
    """
    own, old, reference = _zeroed((logprobs, old_logprobs, reference_logprobs), is_response_token)
    weight = (own - old).exp()
    return masked_mean(weight * kl_k3(own, reference), is_response_token)


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


def _zeroed(tensors: Sequence[Tensor], is_response_token: Tensor) -> list[Tensor]:
    """Tensors with zeros in padding, whose content must reach no gradient."""
    return [torch.where(is_response_token, one, torch.zeros_like(one)) for one in tensors]
