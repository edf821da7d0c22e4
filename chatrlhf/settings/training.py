"""Settings of the stages of a round: SFT, reward model, PPO, and the round around them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from chatrlhf.errors import SettingsError
from chatrlhf.settings.kinds import STRICT, Fraction, NonNegative, Positive, Rate, TermWeights


@dataclass(frozen=True, config=STRICT)
class SftSettings:
    """Supervised fine-tuning on demonstrations."""

    learning_rate: Rate = 3e-4
    epochs: Positive = 3
    batch_size: Positive = 8
    max_tokens: Positive = 512
    warmup_fraction: Fraction = 0.1
    max_grad_norm: Rate = 1.0
    minimum_new: Positive = 4


@dataclass(frozen=True, config=STRICT)
class RewardSettings:
    """Reward model: a weighted sum of terms, each with mean 0 and deviation 1.

    ``weights`` names the terms: ``ranking`` (a Plackett-Luce fit of ``ensemble`` linear heads),
    ``label:<label>`` (a logistic head; on from ``minimum_labels`` replies of both classes on) and
    ``classifier`` (the logit of ``classifier_label`` of a transformers sequence classifier, a
    folder or hub id). A weight of 0 switches a term off. ``spread_penalty`` times the spread of
    the ensemble is taken off the score.

    ``strength_margin`` is the margin of a ranking of strength 5. From ``adapter_rankings``
    rankings on an adapter is trained too, and kept if it orders held-out prompts better.
    """

    learning_rate: Rate = 2e-4
    head_learning_rate: Rate = 1e-3
    epochs: Positive = 2
    rankings_per_batch: Positive = 4
    weight_decay: NonNegative = 0.01
    max_tokens: Positive = 512
    max_grad_norm: Rate = 1.0
    adapter_rankings: Positive = 400
    minimum_rankings: Annotated[int, Field(ge=2)] = 8
    strength_margin: NonNegative = 1.0
    ensemble: Annotated[int, Field(ge=1, le=100)] = 5
    spread_penalty: NonNegative = 0.0
    minimum_labels: Positive = 8
    weights: TermWeights = Field(
        default_factory=lambda: {
            "ranking": 1.0,
            "label:good": 0.5,
            "label:bad": -0.5,
            "label:toxic": -0.5,
            "label:wrong": -0.5,
        }
    )
    classifier: str = ""
    classifier_label: str = ""
    classifier_input: Literal["pair", "reply"] = "pair"

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError("reward.weights has no term with a weight other than 0")
        has_weight = bool(self.weights.get("classifier"))
        if has_weight and not (self.classifier and self.classifier_label):
            raise ValueError(
                "reward.weights has a classifier; set reward.classifier to a folder or hub id and "
                "reward.classifier_label to one of its labels"
            )
        if self.classifier and not has_weight:
            raise ValueError('reward.classifier is set; give it a weight, as "classifier" = 1.0')
        return self


@dataclass(frozen=True, config=STRICT)
class PpoSettings:
    """Proximal policy optimisation against the reward model.

    ``kl_estimator`` k1 puts the KL to the reference into the reward, k2 and k3 into the loss;
    ``kl_coefficient`` is its weight either way. ``kl_target`` (nats a reply) makes the weight
    adapt; 0 keeps it. ``stop_kl`` (nats a token, between the policy that sampled and the one being
    updated) ends the updates of a batch; 0 never does. ``missing_eos_score`` is the score of a
    reply that did not end; with ``score_unfinished`` it keeps its own, as continuations should.
    """

    learning_rate: Rate = 1e-4
    value_learning_rate: Rate = 1e-4
    iterations: Positive = 12
    batch_size: Positive = 16
    minibatches: Positive = 2
    epochs: Positive = 1
    max_new_tokens: Positive = 96
    temperature: Annotated[float, Field(gt=0.0, le=5.0)] = 1.0
    clip_range: Rate = 0.2
    value_clip_range: Rate = 0.2
    value_coefficient: NonNegative = 0.1
    entropy_coefficient: NonNegative = 0.0
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_coefficient: NonNegative = 0.05
    kl_target: Annotated[float, Field(ge=0.0)] = 6.0
    kl_horizon: Positive = 2000
    stop_kl: NonNegative = 0.1
    discount: Fraction = 1.0
    gae_lambda: Fraction = 0.95
    missing_eos_score: float = -1.0
    score_unfinished: bool = False
    max_grad_norm: Rate = 1.0
    optimizer: Literal["adam", "adam8bit"] = "adam"
    gradient_checkpointing: bool = False
    whole_critic: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot work together.

        Raises:
            SettingsError: naming them.
        """
        if self.minibatches > self.batch_size:
            raise SettingsError(
                f"ppo.minibatches = {self.minibatches} is more than ppo.batch_size = "
                f"{self.batch_size}: a minibatch needs a reply. Lower ppo.minibatches."
            )
        if self.kl_target > 0.0 and self.kl_coefficient == 0.0:
            raise SettingsError(
                f"ppo.kl_target = {self.kl_target:g} adapts ppo.kl_coefficient by factors, but it "
                "is 0 and would stay 0. Set a coefficient above 0, or ppo.kl_target = 0."
            )
        if self.kl_target > 0.0 and self.batch_size > self.kl_horizon:
            raise SettingsError(
                f"ppo.kl_horizon = {self.kl_horizon} replies is shorter than one batch of "
                f"{self.batch_size}: the KL coefficient would swing. Raise ppo.kl_horizon."
            )


@dataclass(frozen=True, config=STRICT)
class RoundSettings:
    """When a round starts, and what must hold before its version goes live."""

    refit_every: Positive = 20
    automatic: bool = True
    seed: int = 0
    micro_batch: Positive = 16
    trainer_threads: Annotated[int, Field(ge=0)] = 0
    gate_prompts: Positive = 24
    kl_budget: Rate = 40.0
    heartbeat_timeout_seconds: Rate = 120.0
    attempts: Positive = 3
