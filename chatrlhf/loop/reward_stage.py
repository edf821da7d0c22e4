"""The reward stage of a round: fit every term of the reward, judge it, bring it to scale.

Each term is on or off for a reason that the timeline says. The gate judges the ranking term, on
prompts that its heads were not fitted on; a reward without that term is taken as it is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chatrlhf.errors import RoundSkippedError, VersionError
from chatrlhf.loop import gates
from chatrlhf.loop.checkpoints import Checkpoint, Checkpoints
from chatrlhf.loop.datasets import RoundData
from chatrlhf.loop.gates import Comparison, GateResult
from chatrlhf.loop.incumbent import Incumbent
from chatrlhf.loop.label_terms import tell_label, usable_labels
from chatrlhf.loop.opinions import agreement_sentence
from chatrlhf.loop.progress import RunProgress
from chatrlhf.loop.sentences import say
from chatrlhf.models.adapter_files import REWARD
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import (
    CLASSIFIER,
    LABEL,
    RANKING,
    FeatureScale,
    RewardTerms,
    Term,
)
from chatrlhf.models.sequence_classifier import SequenceClassifier, load_classifier
from chatrlhf.settings import Settings
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.label_head import fit_label_head
from chatrlhf.training.reward import Replies, Reward, ranking_features, read_features
from chatrlhf.training.reward_adapter import RewardStep, try_adapter
from chatrlhf.training.reward_data import RankingExample
from chatrlhf.training.reward_evaluation import RewardEvaluation, evaluate_scores
from chatrlhf.training.reward_head import Heads, cross_validate, fit_heads
from chatrlhf.training.row_limit import RowLimit

START = "start"


@dataclass(frozen=True)
class RewardResult:
    """A fitted reward, whether it may be trained against, and its numbers."""

    reward: Reward
    gate: GateResult
    metrics: dict[str, Any]


@dataclass(frozen=True)
class _RankingFit:
    """Rankings, their features, the ridge of the heads, and how these did on held-out prompts."""

    features: list[Tensor]
    ridge: float
    evaluation: RewardEvaluation
    judged: list[RankingExample]
    scores: list[Tensor]


@dataclass(frozen=True)
class RewardStage:
    """Fits the reward of a round. Adapters ``start`` and ``reward`` are in the bank."""

    base: BaseModel
    bank: LoraBank
    settings: Settings
    data: RoundData
    checkpoints: Checkpoints
    progress: RunProgress
    row_limit: RowLimit
    incumbent: Incumbent | None = None

    def run(self, reference: Callable[[], Replies]) -> RewardResult:
        """Fit, or take what an interrupted run of the same round has fitted.

        ``reference`` samples the replies over which terms get mean 0 and deviation 1.

        Raises:
            RoundSkippedError: there is not enough to fit any term to.
            ModelError: the external classifier cannot be had.
            RoundError: training diverged.
        """
        self._require_enough()
        self.bank.copy(START, REWARD)
        saved = self.checkpoints.load(REWARD)
        if saved is not None:
            result = self._restored(saved)
        else:
            result = self._fitted(reference)
            self.checkpoints.save(
                REWARD,
                {"lora": self.bank.state_of(REWARD), "terms": result.reward.terms.state()},
                {"gate": result.gate.as_json(), "metrics": result.metrics},
            )
        return result

    def _require_enough(self) -> None:
        """Raise RoundSkippedError where the ranking term is wanted without enough rankings."""
        needed = self.settings.reward.minimum_rankings
        count, prompts = len(self.data.rankings), self.data.ranked_prompts
        if self._weight(RANKING) and (count < needed or prompts < 2):
            raise RoundSkippedError(
                say(
                    "There are {count} rankings that order replies, of {prompts} prompts; the "
                    "reward model needs {needed}, of at least two prompts. Rank more replies.",
                    count=count,
                    prompts=prompts,
                    needed=needed,
                )
            )

    # Fitting

    def _fitted(self, reference: Callable[[], Replies]) -> RewardResult:
        self.progress.stage(REWARD, max(len(self.data.rankings), 1))
        classifier = self._classifier()  # first, so that a wrong name fails before the work
        model = self._model()
        ranking = self._fit_ranking(model) if self._weight(RANKING) else None
        labels = usable_labels(self.data.labels, self.settings.reward, self.progress)
        label_features = {
            name: self._features(model, [one.sequence for one in own])
            for name, own in labels.items()
        }
        rows = [*(ranking.features if ranking else []), *label_features.values()]
        width = model.head.weight.numel()
        scale = FeatureScale.of(torch.cat(rows) if rows else torch.zeros(2, width))
        terms: dict[str, Term] = {}
        metrics: dict[str, Any] = {}
        given = say("The reward is taken as it is given: rankings are no part of it.")
        gate = GateResult("reward model", passed=True, sentences=(given,))
        if ranking is not None:
            heads = self._heads(ranking, scale)
            terms[RANKING] = Term.linear(self._weight(RANKING), heads.weights)
            metrics |= {**dataclasses.asdict(ranking.evaluation), "ridge": ranking.ridge}
            metrics["accuracy"] = ranking.evaluation.accuracy
            comparison = None
            if self.incumbent is not None:
                comparison = self._compared(self.incumbent, ranking)
            gate = gates.reward_gate(ranking.evaluation, comparison)
            self._report(ranking.evaluation)
        for name, own in labels.items():
            fit = fit_label_head(own, label_features[name], scale)
            tell_label(name, fit, self._weight(LABEL + name), self.progress)
            if fit.is_better_than_chance:
                terms[LABEL + name] = Term.linear(self._weight(LABEL + name), fit.weight[None])
        if classifier is not None:
            terms[CLASSIFIER] = Term.external(self._weight(CLASSIFIER))
        if not terms:
            raise RoundSkippedError(
                say(
                    "No term of the reward can be used yet. Label or rank more replies, or set "
                    "reward.classifier."
                )
            )
        fitted = RewardTerms(scale, terms, self.settings.reward.spread_penalty)
        reward = Reward(model, fitted, classifier)
        metrics |= self._brought_to_scale(reward, reference())
        return RewardResult(reward, gate, metrics)

    def _fit_ranking(self, model: RewardModel) -> _RankingFit:
        settings, seed, examples = self.settings.reward, self._seed, self.data.rankings
        if self.data.agreement[1]:
            self.progress.event("info", agreement_sentence(*self.data.agreement))

        def on_step(step: int, steps: int) -> None:
            self.progress.step(step, steps, "Reading the ranked replies")

        features = self.row_limit.halving(
            max(one.replies for one in examples),
            lambda rows: ranking_features(model, examples, on_step, rows),
        )
        ridge, scores = cross_validate(examples, features, settings, seed)
        frozen = _RankingFit(
            features, ridge, evaluate_scores(examples, scores), list(examples), scores
        )
        if len(examples) < settings.adapter_rankings:
            return frozen
        return self._fit_adapter(model, frozen)

    def _fit_adapter(self, model: RewardModel, frozen: _RankingFit) -> _RankingFit:
        """Keep the trained adapter if it orders held-out prompts better, else put it back."""

        def on_step(done: RewardStep) -> None:
            self.progress.metrics(done.step, {"loss": done.loss, "grad_norm": done.grad_norm})
            self.progress.step(done.step, done.steps, f"Reward model loss {done.loss:.3f}")

        trial = try_adapter(
            model,
            self.data.rankings,
            frozen.features,
            frozen.ridge,
            self.settings.reward,
            self._seed,
            on_step,
        )
        before, after = f"{trial.frozen.loss:.3f}", f"{trial.trained.loss:.3f}"
        if trial.helped:
            trained = say(
                "A reward adapter was trained: held-out loss {before} -> {after}.",
                before=before,
                after=after,
            )
            self.progress.event("info", trained)
            return _RankingFit(
                trial.features, frozen.ridge, trial.trained, trial.examples, trial.scores
            )
        self.bank.copy(START, REWARD)
        self.progress.event(
            "info",
            say(
                "Training the reward adapter did not help (held-out loss {before} -> {after}), so "
                "the head alone is used.",
                before=before,
                after=after,
            ),
        )
        return frozen

    def _compared(self, incumbent: Incumbent, ranking: _RankingFit) -> Comparison | None:
        try:
            return incumbent.compared(
                self.base, self.bank, self.data.rankings, ranking.judged, ranking.scores
            )
        except VersionError as error:
            told = say(
                "The live version's reward model cannot be compared: {error}", error=str(error)
            )
            self.progress.event("info", told)
            return None

    def _heads(self, ranking: _RankingFit, scale: FeatureScale) -> Heads:
        return fit_heads(
            self.data.rankings,
            ranking.features,
            self.settings.reward,
            ranking.ridge,
            self._seed,
            scale,
        )

    def _classifier(self) -> SequenceClassifier | None:
        settings = self.settings.reward
        if not self._weight(CLASSIFIER):
            return None
        found = load_classifier(
            settings.classifier,
            settings.classifier_label,
            reads=settings.classifier_input,
            device=self.base.device,
        )
        self.progress.event(
            "info",
            say(
                'The classifier {name} scores replies by its label "{label}" with weight {weight}.',
                name=settings.classifier,
                label=settings.classifier_label,
                weight=f"{self._weight(CLASSIFIER):g}",
            ),
        )
        return found

    def _brought_to_scale(self, reward: Reward, replies: Replies) -> dict[str, float]:
        count = len(replies.sequences)
        self.row_limit.halving(count, lambda rows: reward.normalise(replies, rows))
        judged = self.row_limit.halving(count, lambda rows: reward.score(replies, rows))
        spread = float(judged.spread.mean())
        self.progress.metrics(0, {"spread": spread})
        return {"spread": spread}

    # Telling

    def _report(self, evaluation: RewardEvaluation) -> None:
        self.progress.metrics(
            0,
            {
                "loss": evaluation.loss,
                "held_out_accuracy": evaluation.accuracy,
                "calibration_error": evaluation.calibration_error,
                "length_correlation": evaluation.length_correlation,
            },
        )
        note = gates.length_note(evaluation)
        if note:
            self.progress.event("info", note)

    # Tools

    def _restored(self, saved: Checkpoint) -> RewardResult:
        self.bank.load_state(REWARD, saved.part("lora"))
        terms = RewardTerms.from_state(saved.part("terms"), self.base.hidden_size)
        reward = Reward(self._model(), terms, self._classifier())
        return RewardResult(
            reward, GateResult.from_json(saved.values["gate"]), saved.values["metrics"]
        )

    def _model(self) -> RewardModel:
        return RewardModel(self.base, self.bank, REWARD, ScalarHead(self.base.hidden_size))

    def _features(self, model: RewardModel, sequences: Sequence[TokenSequence]) -> Tensor:
        return self.row_limit.halving(
            len(sequences), lambda rows: read_features(model, sequences, rows)
        )

    def _weight(self, name: str) -> float:
        return self.settings.reward.weights.get(name, 0.0)

    @property
    def _seed(self) -> int:
        return self.settings.round.seed
