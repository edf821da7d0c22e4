"""Checks that stop a round in which sampling, reference and update do not fit together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from chatrlhf.errors import RoundError
from chatrlhf.training.experience import Experience

# Mean |ratio - 1| of a first minibatch; above it is no rounding (docs/decisions.md).
_RATIO_TOLERANCE = {torch.float32: 1e-5}
_ROUNDED_RATIO_TOLERANCE = 1e-3


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


def check_equal_policies(experience: Experience) -> None:
    """Equal weights must give equal log-probabilities: the KL at the start is exactly zero.

    Raises:
        RoundError: they do not.
    """
    largest = float((experience.old_logprobs - experience.reference_logprobs).abs().max())
    if largest > 0.0:
        raise RoundError(
            "The policy equals its reference, yet their log-probabilities differ by up to "
            f"{largest:.2g} nats, so the KL penalty would be wrong. Report this with the model and "
            "the ppo settings; nothing was published."
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
