"""docs/training.md names every setting with its default and every number that PPO logs."""

from __future__ import annotations

import dataclasses
import re

import pytest
from docs_links import ROOT

from chatrlhf.settings import (
    ModelSettings,
    PpoSettings,
    RewardSettings,
    RoundSettings,
    SftSettings,
)
from chatrlhf.training.ppo import PpoStats

TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
GROUPS = {
    "model": ModelSettings(),
    "sft": SftSettings(),
    "reward": RewardSettings(),
    "ppo": PpoSettings(),
    "round": RoundSettings(),
}
NOT_ABOUT_TRAINING = {
    "model.name",
    "model.quantization",
    "model.device",
    "model.context_tokens",
}
ROW = re.compile(r"^\| `(\w+\.\w+)` \| (.+?) \| (.+) \|$", re.MULTILINE)
DOCUMENTED = {name: (default, why) for name, default, why in ROW.findall(TEXT)}
SETTINGS = {
    f"{group}.{field.name}": getattr(settings, field.name)
    for group, settings in GROUPS.items()
    for field in dataclasses.fields(settings)
    if f"{group}.{field.name}" not in NOT_ABOUT_TRAINING
}


def test_every_setting_of_the_training_has_a_row_and_no_other_has():
    assert DOCUMENTED.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_row_has_the_default_of_the_code_and_a_reason(name):
    written, why = DOCUMENTED.get(name, ("", ""))
    value = SETTINGS[name]
    if isinstance(value, bool):
        assert written == str(value).lower()
    elif isinstance(value, int | float):
        assert float(written) == value
    elif isinstance(value, str):
        assert written.strip('"') == value
    else:
        pairs = (one.rsplit(" ", 1) for one in written.split(", "))
        assert {key: float(weight) for key, weight in pairs} == value
    assert why.strip()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(PpoStats)])
def test_every_number_that_ppo_logs_is_defined_with_what_is_healthy(name):
    row = re.search(rf"^\| `ppo/{name}` \| (.+) \| (.+) \| (.+) \|$", TEXT, re.MULTILINE)
    assert row is not None
    assert all(cell.strip() for cell in row.groups())
