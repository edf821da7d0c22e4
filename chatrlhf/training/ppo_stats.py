"""What one PPO iteration measured; docs/training.md says what is healthy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from chatrlhf.maths.masked import masked_row_sum
from chatrlhf.maths.ppo_loss import explained_variance
from chatrlhf.training.experience import Experience

# Means over the updates of a batch, by the name that the objective gives them.
_OF_UPDATES = (
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "kl_loss",
    "clip_fraction",
    "value_clip_fraction",
    "approx_kl",
    "grad_norm",
)


@dataclass(frozen=True)
class UpdateLog:
    """The updates of one batch: what each measured, and how many were planned.

    ``largest_approx_kl`` is of all minibatches looked at, the one that ended the updates included.
    """

    updates: Sequence[dict[str, float]]
    planned: int
    largest_approx_kl: float


@dataclass(frozen=True)
class PpoStats:
    """Measurements of one iteration. Means are over real replies or real tokens, never padding.

    Attributes:
        score: mean of what the scorer said.
        reward: mean reward of a reply: its score after the missing-end rule, less the KL penalty
            where that is part of the reward (estimator k1).
        kl: mean over replies of log policy - log reference summed over the reply, in nats. Zero in
            the first iteration.
        kl_coefficient: beta while this batch was used.
        loss: the objective, policy_loss + c_v value_loss - c_e entropy + beta kl_loss; like each
            of its terms a mean over the updates.
        policy_loss: the clipped surrogate, negated.
        value_loss: half the clipped squared error of the critic.
        entropy: of the distribution that each token was drawn from, in nats a token.
        kl_loss: the KL to the reference as a loss, in nats a token; 0 with estimator k1.
        clip_fraction: share of tokens whose ratio was clipped.
        value_clip_fraction: share of tokens whose value was clipped.
        approx_kl: KL between the policy that sampled and the policy being updated, in nats a token
            (k3); 0 in the first minibatch.
        largest_approx_kl: the largest of any minibatch, of one that ended the updates too.
        explained_variance: share of the returns' variance that the old values explain.
        first_ratio_error: mean of |ratio - 1| in the first minibatch, where it must vanish.
        sampling_mismatch: mean difference between the log-probability that a token was drawn with
            and the one that the update starts from, in nats: the rounding of two computations.
        grad_norm: of policy and critic together, before clipping.
        reply_tokens: mean length of a reply, its end token included.
        finished: share of replies that ended by themselves.
        updates: optimizer steps made.
        updates_planned: optimizer steps planned, epochs times minibatches.
        stopped_early: 1 where ``stop_kl`` ended the updates, else 0.
        micro_batch: replies that went through the model at once; halved when memory runs out.
    """

    score: float
    reward: float
    kl: float
    kl_coefficient: float
    loss: float
    policy_loss: float
    value_loss: float
    entropy: float
    kl_loss: float
    clip_fraction: float
    value_clip_fraction: float
    approx_kl: float
    largest_approx_kl: float
    explained_variance: float
    first_ratio_error: float
    sampling_mismatch: float
    grad_norm: float
    reply_tokens: float
    finished: float
    updates: float
    updates_planned: float
    stopped_early: float
    micro_batch: float

    def as_dict(self) -> dict[str, float]:
        """Name to value."""
        return asdict(self)


def summarise(
    experience: Experience, log: UpdateLog, kl_coefficient: float, micro_batch: int
) -> PpoStats:
    """The measurements of a batch and of the updates made with it."""
    mask = experience.is_response_token
    rollout = experience.rollout
    made = len(log.updates)
    explained = explained_variance(experience.old_values, experience.returns, mask)
    means = {name: sum(update[name] for update in log.updates) / made for name in _OF_UPDATES}
    return PpoStats(
        score=float(experience.scores.mean()),
        reward=float(masked_row_sum(experience.rewards, mask).mean()),
        kl=float(experience.sequence_kl().mean()),
        kl_coefficient=kl_coefficient,
        largest_approx_kl=log.largest_approx_kl,
        explained_variance=float(explained),
        first_ratio_error=log.updates[0]["ratio_error"],
        sampling_mismatch=experience.sampling_mismatch(),
        reply_tokens=float(mask.sum(-1).float().mean()),
        finished=sum(rollout.finished) / len(rollout),
        updates=made,
        updates_planned=log.planned,
        stopped_early=float(made < log.planned),
        micro_batch=micro_batch,
        **means,
    )
