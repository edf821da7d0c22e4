"""Reward models fitted to human pairs, ours and TRL's, judged on the same held-out pairs.

Methods, all on the same base, tokens and split:

    head            the convex heads on frozen features of the bare base
    head-starter    the same on features under the starter adapter, as the trainer does
    adapter         a fresh LoRA adapter on the bare base trained by gradient, then the heads again
    trl             TRL's RewardTrainer with a fresh LoRA adapter of the same shape, bare base
    longer          no fit: the longer reply is taken for the better one
"""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from human_pairs import PairSplit
from ranking_model import OnStep, adapter_scores, frozen_features, head_scores
from torch import Tensor
from workbench import START, Workbench

from chatrlhf.loop.intervals import wilson_interval
from chatrlhf.settings import RewardSettings
from chatrlhf.training.reward_data import RankingExample
from chatrlhf.training.reward_evaluation import evaluate_scores

LONGER = "longer"
TRL_LEARNING_RATE = 1e-4  # the default of TRL 1.12.0's RewardConfig

Json = dict[str, Any]


@dataclass(frozen=True)
class PairPlan:
    """Which pairs are fitted and measured, and how."""

    split: PairSplit
    pairs_name: str
    reward: RewardSettings = field(default_factory=RewardSettings)

    def settings(self, method: str) -> Json:
        """What a stored result must have been made with to count for this plan."""
        kept: Json = {"max_tokens": self.reward.max_tokens, "ensemble": self.reward.ensemble}
        if method in ("adapter", "trl"):
            kept |= asdict(self.reward)
        if method == "trl":
            kept |= {"learning_rate": TRL_LEARNING_RATE}
        counts = {"train": len(self.split.train), "held_out": len(self.split.held_out)}
        return {"pairs": self.pairs_name, **counts, **kept}


class RewardFitting:
    """Fits one method after the other; features of the frozen base are made once."""

    def __init__(self, bench: Workbench, plan: PairPlan, on_step: OnStep) -> None:
        self.bench = bench
        self.plan = plan
        self._on_step = on_step
        self._feature_seconds: dict[str, float] = {}

    def fit(self, method: str, size: int, seed: int) -> Json:
        """Fit ``size`` training pairs drawn by ``seed``; the result on the held-out pairs."""
        indices = sorted(random.Random(seed).sample(range(len(self.plan.split.train)), size))
        self._prepare(method)
        started = time.perf_counter()
        extra: Json = {}
        if method in ("head", "head-starter"):
            scores = self._head(method, indices, seed)
            extra = {"feature_seconds": self._feature_seconds[method]}
        elif method == "adapter":
            scores = self._adapter(indices, seed)
        elif method == "trl":
            scores, extra = self._trl(indices, seed)
        else:
            scores = _lengths(self.plan.split.held_out)
        return {
            "method": method,
            "train_pairs": size,
            "seed": seed,
            **measured(self.plan.split.held_out, scores),
            **extra,
            "seconds": time.perf_counter() - started,
        }

    @cached_property
    def _bare_features(self) -> tuple[list[Tensor], list[Tensor]]:
        return self._features("head", None)

    @cached_property
    def _starter_features(self) -> tuple[list[Tensor], list[Tensor]]:
        return self._features("head-starter", START)

    def _prepare(self, method: str) -> None:
        """Make what all fits of a method share, so that it is not timed with the first."""
        if method == "head":
            _ = self._bare_features
        elif method == "head-starter":
            _ = self._starter_features

    def _features(self, method: str, adapter: str | None) -> tuple[list[Tensor], list[Tensor]]:
        train, held_out = self.plan.split.train, self.plan.split.held_out
        started = time.perf_counter()
        found = frozen_features(
            self.bench,
            adapter,
            [*train, *held_out],
            lambda step, steps: self._on_step(step, steps, f"features of {method}"),
        )
        self._feature_seconds[method] = time.perf_counter() - started
        return found[: len(train)], found[len(train) :]

    def _head(self, method: str, indices: Sequence[int], seed: int) -> list[Tensor]:
        train, held_out = self._bare_features if method == "head" else self._starter_features
        examples = [self.plan.split.train[index] for index in indices]
        features = [train[index] for index in indices]
        return head_scores(examples, features, held_out, self.plan.reward, seed)

    def _adapter(self, indices: Sequence[int], seed: int) -> list[Tensor]:
        return adapter_scores(
            self.bench,
            [self.plan.split.train[index] for index in indices],
            self.plan.split.held_out,
            self.plan.reward,
            seed,
            self._on_step,
        )

    def _trl(self, indices: Sequence[int], seed: int) -> tuple[list[Tensor], Json]:
        reward = self.plan.reward
        task = {
            "model": str(self.bench.base.folder),
            "dtype": str(self.bench.base.compute_dtype).removeprefix("torch."),
            "rank": self.bench.bank.rank,
            "alpha": self.bench.bank.alpha,
            "target_modules": list(self.bench.bank.target_modules),
            "epochs": reward.epochs,
            "batch_size": reward.rankings_per_batch,
            "learning_rate": TRL_LEARNING_RATE,
            "weight_decay": reward.weight_decay,
            "max_tokens": reward.max_tokens,
            "seed": seed,
            "threads": torch.get_num_threads(),
            "train": [_ids(self.plan.split.train[index]) for index in indices],
            "held_out": [_ids(example) for example in self.plan.split.held_out],
        }
        with tempfile.TemporaryDirectory() as folder:
            question, answer = Path(folder) / "task.json", Path(folder) / "answer.json"
            question.write_text(json.dumps(task))
            program = Path(__file__).with_name("trl_reward.py")
            self._on_step(0, 1, "TRL trains in a process of its own")
            subprocess.run([sys.executable, str(program), str(question), str(answer)], check=True)
            found = json.loads(answer.read_text())
        scores = list(torch.split(torch.tensor(found["scores"]), 2))
        return scores, {"trl_version": found["trl_version"], "fit_seconds": found["fit_seconds"]}


def measured(held_out: Sequence[RankingExample], scores: Sequence[Tensor]) -> Json:
    """Agreement with people on held-out pairs; scores are a list of (2,), chosen first."""
    evaluation = evaluate_scores(held_out, scores)
    interval = wilson_interval(evaluation.right, evaluation.pairs)
    return {
        "held_out_pairs": evaluation.pairs,
        "held_out_openings": len({example.prompt_key for example in held_out}),
        "right": evaluation.right,
        "accuracy": interval.estimate,
        "interval": [interval.low, interval.high],
        "calibration_error": evaluation.calibration_error,
        "length_correlation": evaluation.length_correlation,
        "is_right": [int(one[0] > one[1]) for one in scores],
    }


def trl_is_installed() -> bool:
    """Whether TRL and what it needs can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("trl", "datasets"))


def _lengths(examples: Sequence[RankingExample]) -> list[Tensor]:
    return [torch.tensor(one.reply_lengths, dtype=torch.float32) for one in examples]


def _ids(example: RankingExample) -> list[list[int]]:
    return [list(sequence.token_ids) for sequence in example.sequences]
