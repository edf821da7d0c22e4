"""Checks that stop a round in which sampling, reference and update do not fit together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from chatrlhf.errors import RoundError
from chatrlhf.training.experience import Experience

# What rounding explains (docs/decisions.md): mean |ratio - 1| of a first minibatch, and mean
# difference of log-probabilities between decoding with a cache and a forward pass, in nats.
_RATIO_TOLERANCE = {torch.float32: 1e-5}
_ROUNDED_RATIO_TOLERANCE = 1e-3
_SAMPLING_TOLERANCE = {"fp32": 1e-3}
_ROUNDED_SAMPLING_TOLERANCE = 0.2
_KERNEL_TOLERANCE = 0.05


def diverged(iteration: int, what: str) -> RoundError:
    """The error of a training that left the numbers."""
    return RoundError(
        f"PPO diverged in iteration {iteration}: {what}. "
        "Lower ppo.learning_rate; nothing was published."
    )


def check_finite(log: Mapping[str, float], iteration: int) -> None:
    """Refuse losses and norms that are not numbers.

    Raises:
        RoundError: naming them.
    """
    bad = [f"{name} = {value}" for name, value in log.items() if not math.isfinite(value)]
    if bad:
        raise diverged(iteration, ", ".join(bad))


def check_equal_policies(experience: Experience, device: torch.device) -> None:
    """Equal weights must give equal log-probabilities: the KL at the start is zero.

    To the last bit on a CPU; a GPU may choose other kernels with gradients than without.

    Raises:
        RoundError: they do not.
    """
    difference = (experience.old_logprobs - experience.reference_logprobs).abs()
    mean = float(difference[experience.is_response_token].mean())
    if mean > (0.0 if device.type == "cpu" else _KERNEL_TOLERANCE):
        raise RoundError(
            "The policy equals its reference, yet their log-probabilities differ by "
            f"{mean:.2g} nats a token, so the KL penalty would be wrong. Report this with the "
            "model and the ppo settings; nothing was published."
        )


def check_sampling(experience: Experience, quantization: str) -> None:
    """The replies were drawn from the distribution that the update starts from.

    Raises:
        RoundError: they were not: adapter, temperature or prompt differ.
    """
    mismatch = experience.sampling_mismatch()
    tolerance = _SAMPLING_TOLERANCE.get(quantization, _ROUNDED_SAMPLING_TOLERANCE)
    if mismatch > tolerance:
        raise RoundError(
            f"The replies were drawn with log-probabilities that differ by {mismatch:.2g} nats a "
            f"token from those of the update, and more than {tolerance:g} is no rounding in "
            f"{quantization}. Report this with the model and the ppo settings; nothing was "
            "published."
        )


def check_first_ratio(error: float, compute_dtype: torch.dtype) -> None:
    """Before the first update, the update's probabilities are those that were stored.

    ``error`` is the mean of |ratio - 1|.

    Raises:
        RoundError: they differ by more than rounding.
    """
    tolerance = _RATIO_TOLERANCE.get(compute_dtype, _ROUNDED_RATIO_TOLERANCE)
    if error > tolerance:
        raise RoundError(
            "Before the first update of a batch the policy's probabilities differ from those "
            f"stored for it: mean |ratio - 1| is {error:.2g}, and more than {tolerance:.0e} is no "
            f"rounding in {compute_dtype}. Sampling and update do not use the same policy. Report "
            "this with the model and the ppo settings; nothing was published."
        )
