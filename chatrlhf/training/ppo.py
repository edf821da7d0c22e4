"""PPO: the policy learns to get higher scores without leaving the reference policy far behind.

One iteration, as in Schulman et al. 2017, algorithm 1, with the reward of Ziegler et al. 2019:

    sample one reply per prompt -> score it -> log-probabilities of policy and reference, values
    -> per-token reward = -beta KL, plus the score at the end -> GAE -> whiten
    -> epochs over minibatches: clipped policy loss + c_v clipped value loss - c_e entropy

Departures from the textbook: the critic is an adapter of its own; the reference is the frozen
adapter that PPO starts from; a reply that does not end gets a fixed score; beta follows a target;
the updates of a batch end early when the policy has moved far; and a batch is cut into minibatches
and micro-batches once, of which later epochs change only the order. So old log-probabilities are
measured on the very tensors that the first epoch uses, and its first ratio is 1 to the last bit.

Notation: B replies, T response positions (right-padded).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from chatrlhf.errors import ModelError
from chatrlhf.maths.ppo_loss import adapted_kl_coefficient
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import ValueModel
from chatrlhf.settings import PpoSettings
from chatrlhf.training.actor_critic import ActorCritic, Evaluation
from chatrlhf.training.experience import (
    Experience,
    Measured,
    Minibatch,
    draw_minibatches,
    make_experience,
)
from chatrlhf.training.parallel import cores, in_parallel
from chatrlhf.training.ppo_checks import (
    check_equal_policies,
    check_finite,
    check_first_ratio,
    check_sampling,
    diverged,
)
from chatrlhf.training.ppo_objective import ppo_objective
from chatrlhf.training.ppo_optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)
from chatrlhf.training.ppo_stats import PpoStats, UpdateLog, summarise
from chatrlhf.training.rollout import Rollout, collect_rollout
from chatrlhf.training.row_limit import RowLimit, memory_in_words, parts_of

Scorer = Callable[[Rollout], Tensor]
Gradients = tuple[Tensor | None, ...]
# Evaluations with their graphs, by the rows of the micro-batch.
Kept = dict[tuple[int, ...], Evaluation]
PPO_PARTS = ("policy", "value", "value_head", "optimizer")


class PpoTrainer:
    """Policy, critic, their optimizer and the KL controller; one ``iteration`` at a time.

    ``scorer`` maps a rollout to scores (B,) and minds its own memory. ``micro_batch`` replies go
    through the model at once at most.
    """

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
        self.step = 0
        self.kl_coefficient = settings.kl_coefficient
        self._rates = [settings.learning_rate, settings.value_learning_rate]
        parameters = [policy.parameters(), critic.parameters()]
        self.optimizer = make_optimizer(
            settings.optimizer,
            list(zip(parameters, self._rates, strict=True)),
            policy.base.device,
        )
        self._actors = ActorCritic(
            policy, critic, settings.temperature, checkpointing=settings.gradient_checkpointing
        )
        self._update_rows = RowLimit(micro_batch)
        self._rollout_rows = RowLimit()
        self._at_once = cores(policy.base.device)

    # Iterations

    def iteration(self, prompts: Sequence[Sequence[int]]) -> tuple[PpoStats, Rollout, Tensor]:
        """Sample, score and update once; returns measurements, the replies and their scores (B,).

        Raises:
            RoundError: a loss or gradient is not finite, sampling and update disagree, or memory
                ran out; the adapter must not be published.
        """
        with memory_in_words():
            rollout = self._sample(prompts)
            try:
                plan, experience, kept = self._update_rows.halving(
                    len(rollout), lambda rows: self._collect(rollout, rows)
                )
            finally:
                self._actors.forget()
            log = self._update(plan, experience, kept)
        stats = summarise(experience, log, self.kl_coefficient, self._update_rows.rows)
        self._adapt_kl_coefficient(stats.kl, len(rollout))
        self.step += 1
        return stats, rollout, experience.scores

    def _sample(self, prompts: Sequence[Sequence[int]]) -> Rollout:
        try:
            return collect_rollout(
                self.policy,
                prompts,
                seed=self.seed * 1_000_003 + self.step,
                max_new_tokens=self.settings.max_new_tokens,
                temperature=self.settings.temperature,
                limit=self._rollout_rows,
            )
        except ModelError as error:  # probabilities that are no numbers
            raise diverged(self.step + 1, "the policy's probabilities are not numbers") from error

    def _collect(
        self, rollout: Rollout, micro_batch: int
    ) -> tuple[list[Minibatch], Experience, Kept]:
        """Cut the batch up, score it and measure it before any update.

        The reference goes first: a reward model and a critic of equal weights read its states.
        Where the whole batch is one minibatch and goes through the model at once, the evaluations
        keep their graphs and are returned for the first update, which saves a forward pass.
        """
        self._actors.new_batch()
        sequences = rollout.sequences
        plan = draw_minibatches(
            [len(sequence) for sequence in sequences],
            self.settings.minibatches,
            micro_batch,
            random.Random(f"{self.seed}/{self.step}"),
            self._at_once,
        )
        parts = [part for minibatch in plan for part in minibatch]
        keeps = len(plan) == 1 and len(parts) <= self._at_once

        batches = [self._actors.batch([sequences[row] for row in rows]) for rows in parts]
        references = in_parallel(self._actors.reference_logprobs, batches, self._at_once)
        scores = self.scorer(rollout).float().cpu()
        with torch.set_grad_enabled(keeps):
            evaluations = in_parallel(self._actors.evaluate, batches, self._at_once)
        measured = Measured.empty(rollout)
        kept: Kept = {}
        for rows, old, reference in zip(parts, evaluations, references, strict=True):
            measured.fill(rows, old.logprobs, reference, old.values)
            if keeps:
                kept[tuple(rows)] = old
        experience = make_experience(rollout, scores, measured, self.settings, self.kl_coefficient)
        if self.step == 0 and self._actors.is_reference():
            check_equal_policies(experience, self.policy.base.device)
        check_sampling(experience, self.policy.base.quantization)
        return plan, experience, kept

    def _update(self, plan: list[Minibatch], experience: Experience, kept: Kept) -> UpdateLog:
        fraction = max(0.0, 1.0 - self.step / self.settings.iterations)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * fraction
        generator = random.Random(f"{self.seed}/{self.step}/epochs")
        order = list(plan)
        updates: list[dict[str, float]] = []
        planned = self.settings.epochs * len(plan)
        largest = 0.0
        for epoch in range(self.settings.epochs):
            if epoch:
                generator.shuffle(order)
            for minibatch in order:
                # The first update of a batch is always made: nothing can have moved yet.
                stop_kl = self.settings.stop_kl if updates else 0.0
                log = self._gradients(minibatch, experience, kept, stop_kl)
                largest = max(largest, log["approx_kl"])
                if 0.0 < stop_kl < log["approx_kl"]:
                    return UpdateLog(updates, planned, largest)
                # After a halving, other shapes round differently.
                if not updates and max(map(len, minibatch)) <= self._update_rows.rows:
                    check_first_ratio(log["ratio_error"], self.policy.base.compute_dtype)
                self._step(log)
                updates.append(log)
        return UpdateLog(updates, planned, largest)

    def _gradients(
        self, minibatch: Minibatch, experience: Experience, kept: Kept, stop_kl: float
    ) -> dict[str, float]:
        """Gradients of one minibatch, and what was measured.

        Gradients are summed over micro-batches, weighted by tokens, in their order, whichever of
        those that run at once ends first. They are left incomplete once ``approx_kl``, a sum of
        terms that are never negative, exceeds ``stop_kl``.
        """
        sequences = experience.rollout.sequences
        tokens = experience.tokens([row for rows in minibatch for row in rows])
        parameters = [p for p in self._parameters() if p.requires_grad]

        def differentiate(rows: list[int]) -> tuple[Gradients, dict[str, float]]:
            batch = self._actors.batch([sequences[row] for row in rows])
            now = kept.pop(tuple(rows), None) or self._actors.evaluate(batch)
            part = experience.part(rows, batch.token_ids.device)
            loss, measured = ppo_objective(now, part, self.settings, self.kl_coefficient)
            check_finite(measured, self.step + 1)
            share = experience.tokens(rows) / tokens
            gradients = torch.autograd.grad(loss * share, parameters, allow_unused=True)
            return gradients, {name: share * value for name, value in measured.items()}

        def attempt(micro_batch: int) -> dict[str, float]:
            self.optimizer.zero_grad(set_to_none=True)
            log: dict[str, float] = {}
            parts = [part for micro in minibatch for part in parts_of(micro, micro_batch)]
            for wave in parts_of(parts, self._at_once):
                for gradients, measured in in_parallel(differentiate, wave, self._at_once):
                    _add_gradients(parameters, gradients)
                    for name, value in measured.items():
                        log[name] = log.get(name, 0.0) + value
                if 0.0 < stop_kl < log["approx_kl"]:
                    break
            return log

        return self._update_rows.halving(max(map(len, minibatch)), attempt)

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _step(self, log: dict[str, float]) -> None:
        """Clip the gradients and make one optimizer step; none if they are not numbers."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters(), self.settings.max_grad_norm)
        log["grad_norm"] = float(norm)
        check_finite(log, self.step + 1)
        self.optimizer.step()

    def _adapt_kl_coefficient(self, observed_kl: float, replies: int) -> None:
        if self.settings.kl_target > 0.0:
            self.kl_coefficient = adapted_kl_coefficient(
                self.kl_coefficient,
                observed_kl,
                self.settings.kl_target,
                samples=replies,
                horizon=self.settings.kl_horizon,
            )

    # Resuming

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, float]]:
        """Everything a resumed trainer needs: tensors by part, and scalars.

        Random numbers need no state: each iteration seeds its own from ``seed`` and ``step``.
        """
        if self.policy.adapter is None:
            raise ValueError("PPO needs a policy adapter")
        parts = {
            "policy": self.policy.bank.state_of(self.policy.adapter),
            "value": self.critic.bank.state_of(self.critic.adapter),
            "value_head": self.critic.head.state(),
            "optimizer": optimizer_tensors(self.optimizer),
        }
        values = {
            "step": self.step,
            "kl_coefficient": self.kl_coefficient,
            "micro_batch": self._update_rows.rows,
            "rollout_rows": self._rollout_rows.rows,
        }
        return parts, values

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
        load_optimizer_tensors(self.optimizer, parts["optimizer"])
        self.step = int(values["step"])
        self.kl_coefficient = float(values["kl_coefficient"])
        # What memory allowed then; a crash since may have lowered it further.
        self._update_rows.lower(int(values["micro_batch"]))
        self._rollout_rows.lower(int(values["rollout_rows"]))


def _add_gradients(parameters: Sequence[nn.Parameter], gradients: Gradients) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.add_(gradient)
