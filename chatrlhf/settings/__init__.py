"""Settings: one frozen dataclass per stage, read from TOML, environment and command line."""

from chatrlhf.settings.kinds import AskPolicy, ChoicePolicy, Quantization
from chatrlhf.settings.loading import Settings, default_data_dir, load_settings, models_cache_dir
from chatrlhf.settings.serving import (
    ChatSettings,
    EngineSettings,
    ModelSettings,
    QueueSettings,
    ServeSettings,
    is_loopback,
)
from chatrlhf.settings.training import PpoSettings, RewardSettings, RoundSettings, SftSettings

__all__ = [
    "AskPolicy",
    "ChatSettings",
    "ChoicePolicy",
    "EngineSettings",
    "ModelSettings",
    "PpoSettings",
    "Quantization",
    "QueueSettings",
    "RewardSettings",
    "RoundSettings",
    "ServeSettings",
    "Settings",
    "SftSettings",
    "default_data_dir",
    "is_loopback",
    "load_settings",
    "models_cache_dir",
]
