"""Rewards per token and generalised advantage estimation.

Notation: B rows, T response positions. ``is_response_token`` (B, T) is True up to and including
the last token of each reply (its end-of-turn token if it has one).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    """Unwhitened advantages and returns = advantages + values, both (B, T), zero after the end."""

    advantages: Tensor
    returns: Tensor


def token_rewards(
    scores: Tensor,
    logprobs: Tensor,
    reference_logprobs: Tensor,
    is_response_token: Tensor,
    kl_coefficient: float,
) -> Tensor:
    """Per-token reward: -beta (log pi - log pi_ref), plus the score on the last real token.

    Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", equation 2, with the
    sequence KL spread over its tokens.

    Args:
        scores: (B,) score of each reply.
        logprobs: (B, T) log-probabilities under the policy that sampled.
        reference_logprobs: (B, T) under the reference policy.
        is_response_token: (B, T) bool.
        kl_coefficient: beta.
    """
    penalty = -kl_coefficient * (logprobs - reference_logprobs)
    rewards = torch.where(is_response_token, penalty, torch.zeros_like(penalty))
    last = is_response_token.sum(-1, keepdim=True).clamp(min=1) - 1
    return rewards.scatter_add(-1, last, scores[:, None].to(rewards.dtype))


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    is_response_token: Tensor,
    discount: float,
    gae_lambda: float,
) -> Advantages:
    """GAE, Schulman et al. 2015, "High-Dimensional Continuous Control", equations 11 and 16.

    The value after the last token is zero: a reply is an episode. Args are (B, T).
    """
    values = torch.where(is_response_token, values, torch.zeros_like(values))
    rewards = torch.where(is_response_token, rewards, torch.zeros_like(rewards))
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + discount * next_value - values[:, t]
        running = delta + discount * gae_lambda * running
        running = torch.where(is_response_token[:, t], running, torch.zeros_like(running))
        advantages[:, t] = running
        next_value = values[:, t]
    return Advantages(advantages, advantages + values)
