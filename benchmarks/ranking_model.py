"""Reward models from rankings, fitted as a round of the trainer fits them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from workbench import REWARD, START, Workbench

from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.settings import RewardSettings
from chatrlhf.training.batches import make_batch
from chatrlhf.training.ppo import Scorer
from chatrlhf.training.reward import (
    RankingExample,
    RewardStep,
    fit_head,
    fit_reward_model,
    normalise,
    ranking_features,
    score_sequences,
)
from chatrlhf.training.rollout import Rollout

OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FittedReward:
    """What scores replies, what the critic starts from, and how well unseen prompts are ordered."""

    scorer: Scorer
    critic_head: ScalarHead
    evaluation: dict[str, Any]


def fit_rankings(
    bench: Workbench, examples: Sequence[RankingExample], reference: Rollout
) -> FittedReward:
    """A head on the start adapter's features, normalised on reference replies."""
    bench.bank.copy(START, REWARD)
    head = ScalarHead(bench.base.hidden_size)
    model = RewardModel(bench.base, bench.bank, REWARD, head)
    evaluation = fit_head(head, examples, ranking_features(model, examples))
    normalise(model, reference.sequences, bench.micro_batch)

    def scorer(rollout: Rollout) -> Tensor:
        return score_sequences(model, rollout.sequences, bench.micro_batch)

    return FittedReward(scorer, head, {**asdict(evaluation), "accuracy": evaluation.accuracy})


@torch.no_grad()
def blank_critic_head(bench: Workbench, reference: Rollout) -> ScalarHead:
    """A head that says zero, on features standardised over reference replies."""
    bench.bank.copy(START, REWARD)
    head = ScalarHead(bench.base.hidden_size)
    model = RewardModel(bench.base, bench.bank, REWARD, head)
    rows = []
    for at in range(0, len(reference), bench.micro_batch):
        batch = make_batch(
            reference.sequences[at : at + bench.micro_batch],
            bench.base.chat_format.pad_token_id,
            bench.base.device,
        )
        rows.append(model.features(batch.token_ids, batch.is_response_token, batch.last_token))
    head.fit_feature_statistics(torch.cat(rows))
    return head


def frozen_features(
    bench: Workbench,
    adapter: str | None,
    examples: Sequence[RankingExample],
    on_step: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Pooled features of every ranking's replies under one adapter, or under none: (K, D) each."""
    head = ScalarHead(bench.base.hidden_size)
    return ranking_features(RewardModel(bench.base, bench.bank, adapter, head), examples, on_step)


def head_scores(
    bench: Workbench,
    examples: Sequence[RankingExample],
    features: Sequence[Tensor],
    held_out: Sequence[Tensor],
) -> list[Tensor]:
    """Fit a head; its scores of the held-out rankings, (K,) each."""
    head = ScalarHead(bench.base.hidden_size)
    fit_head(head, examples, features)
    with torch.no_grad():
        return [head(own) for own in held_out]


def adapter_scores(
    bench: Workbench,
    examples: Sequence[RankingExample],
    held_out: Sequence[RankingExample],
    settings: RewardSettings,
    seed: int,
    on_step: OnStep,
) -> list[Tensor]:
    """Fit a head and a fresh adapter on the bare base; scores of the held-out rankings."""
    bench.bank.remove(REWARD)
    bench.bank.add(REWARD, trainable=True, seed=seed)
    model = RewardModel(bench.base, bench.bank, REWARD, ScalarHead(bench.base.hidden_size))
    fit_head(model.head, examples, ranking_features(model, examples))

    def report(done: RewardStep) -> None:
        on_step(done.step, done.steps, f"adapter, loss {done.loss:.3f}")

    fit_reward_model(model, examples, settings, seed, report)
    sequences = [one for example in held_out for one in example.sequences]
    scores = score_sequences(model, sequences, bench.micro_batch)
    return list(torch.split(scores, [len(example.sequences) for example in held_out]))
