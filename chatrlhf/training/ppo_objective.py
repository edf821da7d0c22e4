"""The PPO objective of some replies, and what is measured beside it.

    loss = policy_loss + c_v value_loss - c_e entropy (+ beta kl_loss)

Notation: B replies, T response positions (right-padded).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from chatrlhf.maths.masked import masked_mean
from chatrlhf.maths.ppo_loss import (
    clipped_policy_loss,
    clipped_value_loss,
    kl_loss_k2,
    kl_loss_k3,
)
from chatrlhf.settings import PpoSettings
from chatrlhf.training.actor_critic import Evaluation
from chatrlhf.training.experience import Part

_KL_LOSSES = {"k2": kl_loss_k2, "k3": kl_loss_k3}


class Objective(NamedTuple):
    """The loss, with gradients, and its terms and companions as plain numbers."""

    loss: Tensor
    measured: dict[str, float]


def ppo_objective(
    now: Evaluation, part: Part, settings: PpoSettings, kl_coefficient: float
) -> Objective:
    """What policy and critic say now against what was said when the batch was collected."""
    mask = part.is_response_token
    policy = clipped_policy_loss(
        now.logprobs, part.old_logprobs, part.advantages, mask, settings.clip_range
    )
    value = clipped_value_loss(
        now.values, part.old_values, part.returns, mask, settings.value_clip_range
    )
    entropy = masked_mean(now.entropies, mask)
    kl = now.logprobs.new_zeros(())
    if settings.kl_estimator in _KL_LOSSES:
        kl_loss = _KL_LOSSES[settings.kl_estimator]
        kl = kl_loss(now.logprobs, part.old_logprobs, part.reference_logprobs, mask)
    loss = (
        policy.loss
        + settings.value_coefficient * value.loss
        - settings.entropy_coefficient * entropy
        + kl_coefficient * kl
    )
    ratio_error = ((now.logprobs.detach() - part.old_logprobs).exp() - 1.0).abs()
    named = {
        "loss": loss,
        "policy_loss": policy.loss,
        "value_loss": value.loss,
        "entropy": entropy,
        "kl_loss": kl,
        "clip_fraction": policy.clip_fraction,
        "value_clip_fraction": value.clip_fraction,
        "approx_kl": policy.approx_kl,
        "ratio_error": masked_mean(ratio_error, mask),
    }
    return Objective(loss, {name: float(tensor.detach()) for name, tensor in named.items()})
