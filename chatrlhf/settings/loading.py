"""All settings, read from TOML, environment and command line.

Later sources win: defaults, ``chatrlhf.toml`` in the data folder, ``CHATRLHF_<GROUP>_<NAME>``
environment variables, command line options.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from chatrlhf.errors import SettingsError
from chatrlhf.settings.kinds import STRICT
from chatrlhf.settings.serving import (
    ChatSettings,
    EngineSettings,
    ModelSettings,
    QueueSettings,
    ServeSettings,
)
from chatrlhf.settings.training import PpoSettings, RewardSettings, RoundSettings, SftSettings


@dataclass(frozen=True, config=STRICT)
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
    queue: QueueSettings = QueueSettings()
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
