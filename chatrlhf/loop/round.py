"""One round: SFT -> reward model -> PPO -> gates -> a version.

The round reads rows, trains adapters beside one frozen base, and hands the result to the caller,
who publishes it. Every stage leaves a checkpoint, so that a killed round goes on.

Adapters in the bank: ``start`` (what the round starts from, frozen: PPO's reference), ``policy``,
``reward`` and ``value``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from chatrlhf.errors import RoundSkippedError
from chatrlhf.loop import gates, verdicts
from chatrlhf.loop.checkpoints import Checkpoints
from chatrlhf.loop.datasets import RoundData, Tokens, draw_prompts
from chatrlhf.loop.gates import GateResult
from chatrlhf.loop.incumbent import Incumbent
from chatrlhf.loop.progress import RunProgress, ScoredText
from chatrlhf.loop.reward_stage import START, RewardStage
from chatrlhf.loop.sentences import Sentence, joined, say
from chatrlhf.models.adapter_files import POLICY, REWARD, VALUE, Component
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import ScalarHead, ValueModel
from chatrlhf.models.reward_terms import TermScores
from chatrlhf.settings import Settings
from chatrlhf.training.distance import mean_sequence_kl
from chatrlhf.training.ppo import PPO_PARTS, PpoTrainer
from chatrlhf.training.reward import Replies, Reward
from chatrlhf.training.rollout import Rollout, collect_rollout
from chatrlhf.training.row_limit import RowLimit
from chatrlhf.training.sft import SftStep, fit_demonstrations, mean_token_loss

CHECKPOINT_EVERY = 4
SAMPLES_SHOWN = 4
REFERENCE_SAMPLES = 32


@dataclass(frozen=True)
class RoundOutcome:
    """What a round leads to. ``components`` is empty when nothing may go live."""

    sentences: tuple[Sentence, ...]
    components: dict[str, Component]
    metrics: dict[str, Any]

    @property
    def message(self) -> str:
        """The sentences in English."""
        return joined(self.sentences)

    @property
    def promoted(self) -> bool:
        """Whether there is a version to publish."""
        return bool(self.components)


@dataclass
class Round:
    """The tools of one round.

    ``parent`` are the live version's adapter weights, ``incumbent`` its reward model.
    """

    base: BaseModel
    bank: LoraBank
    settings: Settings
    data: RoundData
    stages: Sequence[str]
    parent: dict[str, Tensor]
    checkpoints: Checkpoints
    progress: RunProgress
    new_demonstrations: int
    incumbent: Incumbent | None = None
    _judged: TermScores | None = field(default=None, init=False)

    def run(self) -> RoundOutcome:
        """Go through the stages.

        Raises:
            RoundSkippedError: there is not enough to train on.
            RoundError: training diverged, or the lease was lost.
        """
        for name in (START, POLICY, REWARD, VALUE):
            self.bank.add(name, trainable=name != START)
        self.bank.load_state(START, self.parent)
        metrics: dict[str, Any] = {"rankings": len(self.data.rankings)}
        tuned = self._sft(metrics) if "sft" in self.stages else False
        if "reward" not in self.stages and "ppo" not in self.stages:
            return self._sft_outcome(metrics, tuned=tuned)
        reward_model, gate = self._reward(metrics)
        if not gate.passed:
            return RoundOutcome(gate.sentences, {}, metrics)
        if "ppo" not in self.stages:
            nothing_else = say("Nothing else was asked for.")
            return RoundOutcome((*gate.sentences, nothing_else), {}, metrics)
        critic = self._ppo(reward_model)
        return self._policy_outcome(reward_model, critic, metrics)

    # SFT

    def _sft(self, metrics: dict[str, Any]) -> bool:
        """Fit the demonstrations when enough are new; ``start`` becomes the result."""
        enough = self.new_demonstrations >= self.settings.sft.minimum_new
        explicitly = tuple(self.stages) == ("sft",)
        if not self.data.demonstrations or not (enough or explicitly):
            return False
        self.bank.copy(START, POLICY)
        policy = Policy(self.base, self.bank, POLICY)
        saved = self.checkpoints.load("sft")
        if saved is None:
            before = mean_token_loss(policy, self.data.demonstrations)
            self.progress.stage("sft", 1)

            def on_step(done: SftStep) -> None:
                self.progress.metrics(done.step, {"loss": done.loss, "grad_norm": done.grad_norm})
                self.progress.step(done.step, done.steps, f"SFT loss {done.loss:.3f}")

            fit_demonstrations(
                policy, self.data.demonstrations, self.settings.sft, self._seed, on_step
            )
            after = mean_token_loss(policy, self.data.demonstrations)
            metrics["sft_loss"] = {"before": before, "after": after}
            self.checkpoints.save("sft", {POLICY: self.bank.state_of(POLICY)}, metrics["sft_loss"])
        else:
            self.bank.load_state(POLICY, saved.part(POLICY))
            metrics["sft_loss"] = saved.values
        self.bank.copy(POLICY, START)
        loss = metrics["sft_loss"]
        self.progress.event(
            "info",
            say(
                "Learned {count} demonstrations: loss {before} -> {after} nats per token.",
                count=len(self.data.demonstrations),
                before=f"{loss['before']:.3f}",
                after=f"{loss['after']:.3f}",
            ),
        )
        return True

    def _sft_outcome(self, metrics: dict[str, Any], *, tuned: bool) -> RoundOutcome:
        if not tuned:
            raise RoundSkippedError(
                say("There are no demonstrations yet. Write a better reply with E in the chat.")
            )
        gate = gates.demonstration_gate(metrics["sft_loss"]["before"], metrics["sft_loss"]["after"])
        self._tell(gate)
        components = {POLICY: Component(self.bank.state_of(POLICY))} if gate.passed else {}
        return RoundOutcome(gate.sentences, components, metrics)

    # Reward model

    def _reward(self, metrics: dict[str, Any]) -> tuple[Reward, GateResult]:
        stage = RewardStage(
            self.base,
            self.bank,
            self.settings,
            self.data,
            self.checkpoints,
            self.progress,
            self._row_limit,
            self.incumbent,
        )
        result = stage.run(self._reference)
        metrics["reward"] = result.metrics
        self._tell(result.gate)
        return result.reward, result.gate

    def _reference(self) -> Replies:
        """Replies of the start, over which the reward's terms are brought to one scale."""
        prompts = self._draw(self.data.prompts, REFERENCE_SAMPLES, "reference")
        return self._replies(self._answers(START, prompts, seed=self._seed))

    # PPO

    def _ppo(self, reward_model: Reward) -> ScalarHead:
        """Train the policy; returns the head of its critic."""
        self.bank.copy(START, POLICY)
        self.bank.copy(REWARD, VALUE)
        value_head = ScalarHead(self.base.hidden_size)
        value_head.load(reward_model.head.state())
        settings = self.settings.ppo
        trainer = PpoTrainer(
            Policy(self.base, self.bank, POLICY, START),
            ValueModel(self.base, self.bank, VALUE, value_head, whole=settings.whole_critic),
            lambda rollout: self._scores(reward_model, rollout),
            settings,
            seed=self._seed,
            micro_batch=self.settings.round.micro_batch,
        )
        saved = self.checkpoints.load("ppo")
        if saved is not None:
            trainer.restore({part: saved.part(part) for part in PPO_PARTS}, saved.values)
            self.progress.event(
                "info", say("PPO goes on at iteration {iteration}.", iteration=trainer.step + 1)
            )
        self.progress.stage("ppo", settings.iterations, trainer.step)
        while trainer.step < settings.iterations:
            prompts = self._draw(self.data.prompts, settings.batch_size, f"ppo/{trainer.step}")
            stats, rollout, scores = trainer.iteration(prompts)
            self.progress.metrics(trainer.step, stats.as_dict())
            self._show(trainer.step, rollout, scores)
            if trainer.step % CHECKPOINT_EVERY == 0:
                self.checkpoints.save("ppo", *trainer.state())
            self.progress.step(
                trainer.step,
                settings.iterations,
                f"PPO score {stats.score:+.2f}, KL {stats.kl:.1f}, {stats.reply_tokens:.0f} tokens",
            )
        return value_head

    def _policy_outcome(
        self, reward_model: Reward, critic: ScalarHead, metrics: dict[str, Any]
    ) -> RoundOutcome:
        prompts = self.data.gate_prompts or self.data.prompts[: self.settings.round.gate_prompts]
        self.progress.stage("gates", 2)
        canaries = []
        for step, name in enumerate((START, POLICY), start=1):
            answers = self._answers(name, prompts, seed=self._seed + 1)
            judged = self._judge(reward_model, answers)
            canaries.append(gates.measure(answers, judged.total, judged.spread))
            self.progress.step(step, 2, "Comparing with the version before")
        parent, candidate = canaries
        kl = self._distance(answers)
        results = gates.policy_gates(candidate, parent, kl, self.settings.round.kl_budget)
        for result in results:
            self._tell(result)
        self.progress.metrics(0, dataclasses.asdict(parent))
        self.progress.metrics(1, {**dataclasses.asdict(candidate), "kl": kl})
        if signs := verdicts.gaming(parent, candidate):
            self.progress.event("info", *signs)
        metrics["gates"] = {
            "parent": dataclasses.asdict(parent),
            "candidate": dataclasses.asdict(candidate),
            "kl": kl,
        }
        failed = [result for result in results if not result.passed]
        if failed:
            names = ", ".join(result.name for result in failed)
            why = say("Not promoted, because of {gates}:", gates=names)
            found = [sentence for result in failed for sentence in result.sentences]
            return RoundOutcome((why, *found), {}, metrics)
        components = {
            POLICY: Component(self.bank.state_of(POLICY)),
            REWARD: Component(self.bank.state_of(REWARD), reward_model.terms.state()),
            VALUE: Component(self.bank.state_of(VALUE), critic.state()),
        }
        rose = say(
            "Mean score {before} -> {after} at {kl} nats.",
            before=f"{parent.score:+.2f}",
            after=f"{candidate.score:+.2f}",
            kl=f"{kl:.1f}",
        )
        return RoundOutcome((rose,), components, metrics)

    # Tools

    @property
    def _seed(self) -> int:
        return self.settings.round.seed

    @cached_property
    def _row_limit(self) -> RowLimit:
        """How many replies are scored at once; halved when memory runs out."""
        return RowLimit(self.settings.round.micro_batch)

    def _tell(self, gate: GateResult) -> None:
        if gate.passed:
            self.progress.event("gate_passed", *gate.sentences)
        else:
            self.progress.event("gate_failed", say("Not promoted:"), *gate.sentences)

    def _draw(self, prompts: Sequence[Tokens], count: int, purpose: str) -> list[Tokens]:
        """Prompts for one purpose: each at most once as long as there are enough."""
        if not prompts:
            room = self.settings.reward.max_tokens - self.settings.ppo.max_new_tokens
            raise RoundSkippedError(
                say(
                    "There is no prompt to answer: none has at most {room} tokens, which is "
                    "reward.max_tokens less ppo.max_new_tokens. Raise the one or lower the other.",
                    room=room,
                )
            )
        return draw_prompts(prompts, count, f"{self._seed}/{purpose}")

    def _answers(self, adapter: str, prompts: Sequence[Tokens], seed: int) -> Rollout:
        return collect_rollout(
            Policy(self.base, self.bank, adapter),
            prompts,
            seed=seed,
            max_new_tokens=self.settings.ppo.max_new_tokens,
            temperature=self.settings.ppo.temperature,
        )

    def _judge(self, reward: Reward, rollout: Rollout) -> TermScores:
        replies = self._replies(rollout)
        return self._row_limit.halving(len(rollout), lambda rows: reward.score(replies, rows))

    def _scores(self, reward: Reward, rollout: Rollout) -> Tensor:
        self._judged = self._judge(reward, rollout)
        return self._judged.total

    def _replies(self, rollout: Rollout) -> Replies:
        decode = self.base.chat_format.decode
        texts = [
            (self.data.questions[prompt], decode(response))
            for prompt, response in zip(rollout.prompts, rollout.responses, strict=True)
        ]
        return Replies(rollout.sequences, texts)

    def _distance(self, rollout: Rollout) -> float:
        """Mean sequence KL of the policy's own replies to its start, in nats."""
        policy = Policy(self.base, self.bank, POLICY, START)
        temperature = self.settings.ppo.temperature
        return self._row_limit.halving(
            len(rollout), lambda rows: mean_sequence_kl(policy, rollout, temperature, rows)
        )

    def _show(self, step: int, rollout: Rollout, scores: Tensor) -> None:
        """Store some replies of an iteration, and the means of the terms of the reward."""
        judged = self._judged
        if judged is None:
            return
        means = {f"term_{name}": float(value.mean()) for name, value in judged.values.items()}
        self.progress.metrics(step, {**means, "spread": float(judged.spread.mean())})
        decode = self.base.chat_format.decode
        self.progress.samples(
            step,
            [
                ScoredText(
                    self.data.questions[rollout.prompts[row]],
                    decode(rollout.responses[row]),
                    float(scores[row]),
                    {name: float(value[row]) for name, value in judged.contributions.items()},
                )
                for row in range(min(SAMPLES_SHOWN, len(rollout)))
            ],
        )
