"""PPO: the policy learns to get higher scores without leaving the reference policy far behind.

One iteration, as in Schulman et al. 2017, algorithm 1, with the reward of Ziegler et al. 2019:

    sample one reply per prompt -> score it -> log-probabilities of policy and reference, values
    -> per-token reward = -beta KL, plus the score at the end -> GAE -> whiten
    -> epochs over minibatches: clipped policy loss + c_v clipped value loss - c_e entropy

Departures from the textbook: the critic is an adapter of its own; the reference is the frozen
adapter that PPO starts from; a reply that does not end gets a fixed score; beta follows a target.

Notation: B replies, T response positions (right-padded), N real response tokens.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from chatrlhf.errors import RoundError
from chatrlhf.maths.advantages import generalised_advantages, token_rewards
from chatrlhf.maths.logprobs import TokenStatistics
from chatrlhf.maths.masked import masked_mean, masked_row_sum, masked_whiten
from chatrlhf.maths.ppo_loss import (
    adapted_kl_coefficient,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
)
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import ValueModel
from chatrlhf.settings import PpoSettings
from chatrlhf.training.batches import SequenceBatch, make_batch
from chatrlhf.training.rollout import Rollout, collect_rollout

Scorer = Callable[[Rollout], Tensor]
PPO_PARTS = ("policy", "value", "value_head", "optimizer")


@dataclass(frozen=True)
class PpoStats:
    """Measurements of one iteration; every mean is over real replies or real tokens.

    ``score`` is what the scorer said, ``reward`` the score after the missing-end rule minus the
    KL penalty, ``kl`` the sequence-summed KL to the reference in nats.
    """

    score: float
    reward: float
    kl: float
    kl_coefficient: float
    entropy: float
    reply_tokens: float
    finished: float
    policy_loss: float
    value_loss: float
    clip_fraction: float
    value_clip_fraction: float
    approx_kl: float
    explained_variance: float
    first_ratio_error: float
    grad_norm: float

    def as_dict(self) -> dict[str, float]:
        """Name to value."""
        return asdict(self)


@dataclass(frozen=True)
class _Experience:
    """A scored batch. Tensors are (B, T) but for ``scores`` (B,)."""

    rollout: Rollout
    is_response_token: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor
    old_values: Tensor
    entropies: Tensor
    scores: Tensor
    advantages: Tensor
    returns: Tensor
    rewards: Tensor


class PpoTrainer:
    """Policy, critic, their optimizers and the KL controller; one ``iteration`` at a time."""

    def __init__(
        self,
        policy: Policy,
        critic: ValueModel,
        scorer: Scorer,
        settings: PpoSettings,
        *,
        seed: int,
        micro_batch: int,
    ) -> None:
        self.policy = policy
        self.critic = critic
        self.scorer = scorer
        self.settings = settings
        self.seed = seed
        self.micro_batch = micro_batch
        self.step = 0
        self.kl_coefficient = settings.kl_coefficient
        self.optimizer = torch.optim.Adam(
            [
                {"params": policy.parameters(), "lr": settings.learning_rate},
                {"params": critic.parameters(), "lr": settings.value_learning_rate},
            ],
            eps=1e-5,
            fused=True,
        )
        self._rates = [settings.learning_rate, settings.value_learning_rate]

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, float]]:
        """Everything a resumed trainer needs: tensors by part, and scalars.

        Random numbers need no state: each iteration seeds its own from ``seed`` and ``step``.
        """
        moments: dict[str, Tensor] = {}
        for index, slot in self.optimizer.state_dict()["state"].items():
            for name, tensor in slot.items():
                moments[f"{index}.{name}"] = tensor.detach().clone()
        policy_adapter = self.policy.adapter
        if policy_adapter is None:
            raise ValueError("PPO needs a policy adapter")
        parts = {
            "policy": self.policy.bank.state_of(policy_adapter),
            "value": self.critic.bank.state_of(self.critic.adapter),
            "value_head": self.critic.head.state(),
            "optimizer": moments,
        }
        return parts, {"step": self.step, "kl_coefficient": self.kl_coefficient}

    def restore(
        self, parts: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, float]
    ) -> None:
        """Go on exactly where ``state`` was taken.

        Raises:
            VersionError: the tensors do not fit the base or the heads.
        """
        if self.policy.adapter is None:
            raise ValueError("PPO needs a policy adapter")
        self.policy.bank.load_state(self.policy.adapter, parts["policy"])
        self.critic.bank.load_state(self.critic.adapter, parts["value"])
        self.critic.head.load(parts["value_head"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in parts["optimizer"].items():
            index, _, name = key.partition(".")
            # A copy, as the optimizer would go on in the very tensors that it is given.
            state.setdefault(int(index), {})[name] = tensor.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step = int(values["step"])
        self.kl_coefficient = float(values["kl_coefficient"])

    def iteration(self, prompts: Sequence[Sequence[int]]) -> tuple[PpoStats, Rollout, Tensor]:
        """Sample, score and update once; returns measurements, the replies and their scores (B,).

        Raises:
            RoundError: a loss or gradient is not finite; the adapter must not be published.
        """
        rollout = collect_rollout(
            self.policy,
            prompts,
            seed=self.seed * 1_000_003 + self.step,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
        )
        experience = self._collect(rollout)
        stats = self._update(experience)
        self.step += 1
        return stats, rollout, experience.scores

    @torch.no_grad()
    def _collect(self, rollout: Rollout) -> _Experience:
        settings = self.settings
        longest = max(len(response) for response in rollout.responses)
        shape = (len(rollout), longest)
        mask = torch.zeros(shape, dtype=torch.bool)
        for row, response in enumerate(rollout.responses):
            mask[row, : len(response)] = True
        grids = {name: torch.zeros(shape) for name in ("old", "reference", "values", "entropies")}
        for rows in self._parts(range(len(rollout)), self.micro_batch):
            batch = self._batch(rollout, rows)
            own = self._statistics(self.policy, batch)
            with self.policy.as_reference() as reference:
                theirs = self._statistics(reference, batch)
            values = self.critic.values(
                batch.token_ids, batch.is_response_token, batch.predicts_response
            )
            for name, flat in (
                ("old", own.logprobs),
                ("entropies", own.entropies),
                ("reference", theirs.logprobs),
                ("values", values),
            ):
                grid = torch.zeros(len(rows), longest)
                grid[mask[rows]] = flat.float().cpu()
                grids[name][rows] = grid
        scores = self.scorer(rollout).float().cpu()
        finished = torch.tensor(rollout.finished)
        judged = torch.where(finished, scores, torch.full_like(scores, settings.missing_eos_score))
        rewards = token_rewards(judged, grids["old"], grids["reference"], mask, self.kl_coefficient)
        advantages, returns = generalised_advantages(
            rewards, grids["values"], mask, settings.discount, settings.gae_lambda
        )
        return _Experience(
            rollout=rollout,
            is_response_token=mask,
            old_logprobs=grids["old"],
            reference_logprobs=grids["reference"],
            old_values=grids["values"],
            entropies=grids["entropies"],
            scores=scores,
            advantages=masked_whiten(advantages, mask),
            returns=returns,
            rewards=rewards,
        )

    def _update(self, experience: _Experience) -> PpoStats:
        settings = self.settings
        fraction = max(0.0, 1.0 - self.step / settings.iterations)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * fraction
        size = math.ceil(len(experience.rollout) / settings.minibatches)
        generator = random.Random(f"{self.seed}/{self.step}")
        logs: list[dict[str, float]] = []
        for _ in range(settings.epochs):
            order = list(range(len(experience.rollout)))
            generator.shuffle(order)
            for rows in self._parts(order, size):
                logs.append(self._minibatch(experience, rows))
        return self._summary(experience, logs)

    def _minibatch(self, experience: _Experience, rows: list[int]) -> dict[str, float]:
        """One optimizer step; gradients accumulate over micro-batches, weighted by tokens."""
        self.optimizer.zero_grad(set_to_none=True)
        tokens = int(experience.is_response_token[rows].sum())
        log: dict[str, float] = {}
        for part in self._parts(rows, self.micro_batch):
            share = int(experience.is_response_token[part].sum()) / tokens
            loss, measured = self._loss(experience, part)
            torch.autograd.backward(loss * share)
            for name, value in measured.items():
                log[name] = log.get(name, 0.0) + share * value
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        log["grad_norm"] = float(norm)
        if not all(math.isfinite(value) for value in log.values()):
            raise RoundError(
                f"PPO diverged in iteration {self.step + 1}: {log}. "
                "Lower ppo.learning_rate; nothing was published."
            )
        self.optimizer.step()
        return log

    def _loss(self, experience: _Experience, rows: list[int]) -> tuple[Tensor, dict[str, float]]:
        settings = self.settings
        batch = self._batch(experience.rollout, rows)
        mask = experience.is_response_token[rows]
        is_response = mask[:, : int(mask.sum(-1).max())]
        width = is_response.shape[1]

        def grid(flat: Tensor) -> Tensor:
            empty = torch.zeros(is_response.shape, device=flat.device)
            return empty.masked_scatter(is_response.to(flat.device), flat)

        def old(name: str) -> Tensor:
            values: Tensor = getattr(experience, name)[rows][:, :width]
            return values.to(batch.token_ids.device)

        statistics = self._statistics(self.policy, batch)
        values = grid(
            self.critic.values(batch.token_ids, batch.is_response_token, batch.predicts_response)
        )
        logprobs, entropies = grid(statistics.logprobs), grid(statistics.entropies)
        on_device = is_response.to(batch.token_ids.device)
        policy_loss = clipped_policy_loss(
            logprobs, old("old_logprobs"), old("advantages"), on_device, settings.clip_range
        )
        value_loss = clipped_value_loss(
            values, old("old_values"), old("returns"), on_device, settings.value_clip_range
        )
        entropy = masked_mean(entropies, on_device)
        loss = (
            policy_loss.loss
            + settings.value_coefficient * value_loss.loss
            - settings.entropy_coefficient * entropy
        )
        error = (logprobs.detach() - old("old_logprobs")).exp() - 1.0
        return loss, {
            "policy_loss": float(policy_loss.loss.detach()),
            "value_loss": float(value_loss.loss.detach()),
            "clip_fraction": float(policy_loss.clip_fraction),
            "value_clip_fraction": float(value_loss.clip_fraction),
            "approx_kl": float(policy_loss.approx_kl),
            "ratio_error": float(masked_mean(error.abs(), on_device)),
        }

    def _summary(self, experience: _Experience, logs: list[dict[str, float]]) -> PpoStats:
        mask = experience.is_response_token

        def mean(name: str) -> float:
            return sum(log[name] for log in logs) / len(logs)

        kl = masked_row_sum(experience.old_logprobs - experience.reference_logprobs, mask)
        observed_kl = float(kl.mean())
        stats = PpoStats(
            score=float(experience.scores.mean()),
            reward=float(masked_row_sum(experience.rewards, mask).mean()),
            kl=observed_kl,
            kl_coefficient=self.kl_coefficient,
            entropy=float(masked_mean(experience.entropies, mask)),
            reply_tokens=float(mask.sum(-1).float().mean()),
            finished=sum(experience.rollout.finished) / len(experience.rollout),
            policy_loss=mean("policy_loss"),
            value_loss=mean("value_loss"),
            clip_fraction=mean("clip_fraction"),
            value_clip_fraction=mean("value_clip_fraction"),
            approx_kl=mean("approx_kl"),
            explained_variance=float(
                explained_variance(experience.old_values, experience.returns, mask)
            ),
            first_ratio_error=logs[0]["ratio_error"],
            grad_norm=mean("grad_norm"),
        )
        if self.settings.kl_target > 0.0:
            self.kl_coefficient = adapted_kl_coefficient(
                self.kl_coefficient,
                observed_kl,
                self.settings.kl_target,
                samples=len(experience.rollout),
                horizon=self.settings.kl_horizon,
            )
        return stats

    def _statistics(self, policy: Policy, batch: SequenceBatch) -> TokenStatistics:
        return policy.token_statistics(
            batch.token_ids, batch.predicts_response, batch.targets, self.settings.temperature
        )

    def _batch(self, rollout: Rollout, rows: Sequence[int]) -> SequenceBatch:
        sequences = rollout.sequences
        return make_batch(
            [sequences[row] for row in rows],
            self.policy.base.chat_format.pad_token_id,
            self.policy.base.device,
        )

    @staticmethod
    def _parts(rows: Sequence[int], size: int) -> list[list[int]]:
        return [list(rows[start : start + size]) for start in range(0, len(rows), size)]
