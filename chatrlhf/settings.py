"""Settings: one frozen dataclass per stage, read from TOML, environment and command line.

Later sources win: defaults, ``chatrlhf.toml`` in the data folder, ``CHATRLHF_<GROUP>_<NAME>``
environment variables, command line options.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from chatrlhf.errors import SettingsError

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Quantization = Literal["auto", "nf4", "int8", "bf16", "fp32"]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]


@dataclass(frozen=True, config=_STRICT)
class ModelSettings:
    """Which base model, and how it is held in memory."""

    name: str = "embedded"
    quantization: Quantization = "auto"
    device: str = "auto"
    context_tokens: Annotated[int, Field(ge=64)] = 2048
    lora_rank: Positive = 16
    lora_alpha: Rate = 16.0


@dataclass(frozen=True, config=_STRICT)
class ChatSettings:
    """How replies are sampled for a person."""

    replies: Annotated[int, Field(ge=1, le=8)] = 4
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.9
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    top_k: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 128


@dataclass(frozen=True, config=_STRICT)
class EngineSettings:
    """Limits of the engine: versions in memory, turns at once, turns waiting."""

    resident_versions: Annotated[int, Field(ge=2, le=16)] = 4
    active_turns: Positive = 4
    queued_turns: Positive = 64
    prefix_cache_tokens: Annotated[int, Field(ge=0)] = 16384


@dataclass(frozen=True, config=_STRICT)
class SftSettings:
    """Supervised fine-tuning on demonstrations."""

    learning_rate: Rate = 3e-4
    epochs: Positive = 3
    batch_size: Positive = 8
    max_tokens: Positive = 512
    warmup_fraction: Fraction = 0.1
    max_grad_norm: Rate = 1.0
    minimum_new: Positive = 4


def _weights_of_text(value: object) -> object:
    """Environment variables hold the weights as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f'it is no JSON object like {{"ranking": 1.0}} ({error})') from error


TermName = Annotated[str, Field(pattern=r"^(ranking|classifier|label:[a-z][a-z0-9_-]{0,39})$")]
TermWeight = Annotated[float, Field(allow_inf_nan=False)]
TermWeights = Annotated[dict[TermName, TermWeight], BeforeValidator(_weights_of_text)]


@dataclass(frozen=True, config=_STRICT)
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


@dataclass(frozen=True, config=_STRICT)
class PpoSettings:
    """Proximal policy optimisation against the reward model.

    ``kl_estimator`` k1 puts the KL to the reference into the reward, k2 and k3 into the loss;
    ``kl_coefficient`` is its weight either way. ``kl_target`` (nats a reply) makes the weight
    adapt; 0 keeps it. ``stop_kl`` (nats a token, between the policy that sampled and the one being
    updated) ends the updates of a batch; 0 never does. ``missing_eos_score`` is the score of a
    reply that did not end.
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


@dataclass(frozen=True, config=_STRICT)
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


@dataclass(frozen=True, config=_STRICT)
class ServeSettings:
    """Where the server listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 7860


@dataclass(frozen=True, config=_STRICT)
class Settings:
    """All settings, and the data folder they belong to."""

    data_dir: Path
    model: ModelSettings = ModelSettings()
    chat: ChatSettings = ChatSettings()
    engine: EngineSettings = EngineSettings()
    sft: SftSettings = SftSettings()
    reward: RewardSettings = RewardSettings()
    ppo: PpoSettings = PpoSettings()
    round: RoundSettings = RoundSettings()
    serve: ServeSettings = ServeSettings()

    def __post_init__(self) -> None:
        """Refuse groups that cannot work together.

        Raises:
            SettingsError: naming them.
        """
        if self.ppo.max_new_tokens >= self.reward.max_tokens:
            raise SettingsError(
                f"ppo.max_new_tokens = {self.ppo.max_new_tokens} leaves no room for a prompt in "
                f"reward.max_tokens = {self.reward.max_tokens}. Lower the one or raise the other."
            )

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return self.data_dir / "chatrlhf.db"

    @property
    def versions_dir(self) -> Path:
        """Folder of the adapter versions."""
        return self.data_dir / "versions"

    @property
    def runs_dir(self) -> Path:
        """Folder of checkpoints and logs, one folder a round."""
        return self.data_dir / "runs"


def default_data_dir() -> Path:
    """``CHATRLHF_DATA``, else the platform's user data folder."""
    from_environment = os.environ.get("CHATRLHF_DATA")
    if from_environment:
        return Path(from_environment).expanduser().absolute()
    return Path(platformdirs.user_data_dir("chatrlhf", appauthor=False))


def models_cache_dir() -> Path:
    """Folder of converted base models: ``CHATRLHF_MODELS``, else the user cache folder."""
    from_environment = os.environ.get("CHATRLHF_MODELS")
    if from_environment:
        return Path(from_environment).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("chatrlhf", appauthor=False)) / "models"


def load_settings(
    data_dir: Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings of a data folder.

    ``overrides`` maps a group to its values (``{"ppo": {"iterations": 2}}``); ``None`` values
    are ignored, so that unset command line options can be passed through.

    Raises:
        SettingsError: a file, variable or override has an unknown name or a wrong value.
    """
    environment = os.environ if environment is None else environment
    folder = default_data_dir() if data_dir is None else data_dir.expanduser().absolute()
    groups: dict[str, dict[str, Any]] = {name: {} for name in _group_names()}
    _merge(groups, _read_toml(folder / "chatrlhf.toml"), str(folder / "chatrlhf.toml"))
    _merge(groups, _read_environment(environment), "the environment")
    _merge(groups, overrides or {}, "the command line")
    try:
        return TypeAdapter(Settings).validate_python({"data_dir": folder, **groups})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = f"{name} = {first['input']!r}: {first['msg']}. Correct it and start again."
        raise SettingsError(message) from error


def _group_names() -> list[str]:
    return [field.name for field in dataclasses.fields(Settings) if field.name != "data_dir"]


def _merge(
    groups: dict[str, dict[str, Any]], source: Mapping[str, Mapping[str, Any]], origin: str
) -> None:
    for group, values in source.items():
        if group not in groups:
            known = ", ".join(sorted(groups))
            raise SettingsError(f"{origin}: there is no group [{group}]. The groups are {known}.")
        if not isinstance(values, Mapping):
            raise SettingsError(f"{origin}: {group} must be a table, like [{group}].")
        groups[group].update({key: value for key, value in values.items() if value is not None})


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Correct or remove it.") from error


def _read_environment(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for group in _group_names():
        prefix = f"CHATRLHF_{group.upper()}_"
        for name, value in environment.items():
            if name.startswith(prefix):
                found.setdefault(group, {})[name.removeprefix(prefix).lower()] = value
    return found
