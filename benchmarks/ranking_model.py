"""Reward models from rankings, fitted as a round of the trainer fits them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from workbench import REWARD, START, Workbench

from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import RANKING, FeatureScale, RewardTerms, Term
from chatrlhf.settings import RewardSettings
from chatrlhf.training.ppo import Scorer
from chatrlhf.training.reward import Replies, Reward, ranking_features, read_features
from chatrlhf.training.reward_adapter import RewardStep, fit_reward_model
from chatrlhf.training.reward_data import RankingExample
from chatrlhf.training.reward_evaluation import evaluate_scores
from chatrlhf.training.reward_head import Heads, cross_validate, fit_heads
from chatrlhf.training.rollout import Rollout

OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FittedReward:
    """What scores replies, what the critic starts from, and how well unseen prompts are ordered."""

    scorer: Scorer
    critic_head: ScalarHead
    evaluation: dict[str, Any]


def fit_rankings(
    bench: Workbench, examples: Sequence[RankingExample], reference: Rollout, seed: int
) -> FittedReward:
    """The ranking term on the start adapter's features, brought to scale on reference replies."""
    settings = RewardSettings()
    bench.bank.copy(START, REWARD)
    model = _model(bench, REWARD)
    features = ranking_features(model, examples)
    ridge, out_of_fold = cross_validate(examples, features, settings, seed)
    heads = fit_heads(examples, features, settings, ridge, seed)
    terms = RewardTerms(heads.scale, {RANKING: Term.linear(1.0, heads.weights)})
    reward = Reward(model, terms)
    reward.normalise(_replies(reference), bench.micro_batch)
    evaluation = evaluate_scores(examples, out_of_fold)

    def scorer(rollout: Rollout) -> Tensor:
        return reward.score(_replies(rollout), bench.micro_batch).total

    return FittedReward(
        scorer,
        reward.head,
        {**asdict(evaluation), "accuracy": evaluation.accuracy, "ridge": ridge},
    )


def blank_critic_head(bench: Workbench, reference: Rollout) -> ScalarHead:
    """A head that says zero, on features standardised over reference replies."""
    bench.bank.copy(START, REWARD)
    features = read_features(_model(bench, REWARD), reference.sequences, bench.micro_batch)
    scale = FeatureScale.of(features)
    head = ScalarHead(bench.base.hidden_size)
    head.load({**head.state(), "feature_mean": scale.mean, "feature_scale": scale.scale})
    return head


def frozen_features(
    bench: Workbench,
    adapter: str | None,
    examples: Sequence[RankingExample],
    on_step: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Pooled features of every ranking's replies under one adapter, or under none: (K, D) each."""
    return ranking_features(_model(bench, adapter), examples, on_step)


def head_scores(
    examples: Sequence[RankingExample],
    features: Sequence[Tensor],
    held_out: Sequence[Tensor],
    settings: RewardSettings,
    seed: int,
) -> list[Tensor]:
    """Fit the heads; their scores of the held-out rankings, (K,) each."""
    heads = _heads(examples, features, settings, seed)
    return [heads.scores(own) for own in held_out]


def adapter_scores(
    bench: Workbench,
    examples: Sequence[RankingExample],
    held_out: Sequence[RankingExample],
    settings: RewardSettings,
    seed: int,
    on_step: OnStep,
) -> list[Tensor]:
    """Fit a fresh adapter on the bare base, and the heads; scores of the held-out rankings."""
    bench.bank.remove(REWARD)
    bench.bank.add(REWARD, trainable=True, seed=seed)
    model = _model(bench, REWARD)
    before = _heads(examples, ranking_features(model, examples), settings, seed)
    model.head.load(before.mean_head().state())

    def report(done: RewardStep) -> None:
        on_step(done.step, done.steps, f"adapter, loss {done.loss:.3f}")

    fit_reward_model(model, examples, settings, seed, report)
    after = _heads(examples, ranking_features(model, examples), settings, seed)
    return [after.scores(own) for own in ranking_features(model, held_out)]


def _heads(
    examples: Sequence[RankingExample],
    features: Sequence[Tensor],
    settings: RewardSettings,
    seed: int,
) -> Heads:
    ridge, _ = cross_validate(examples, features, settings, seed)
    return fit_heads(examples, features, settings, ridge, seed)


def _model(bench: Workbench, adapter: str | None) -> RewardModel:
    head = ScalarHead(bench.base.hidden_size)
    return RewardModel(bench.base, bench.bank, adapter, head)


def _replies(rollout: Rollout) -> Replies:
    """Without texts, which only an external classifier reads."""
    return Replies(rollout.sequences, ())
