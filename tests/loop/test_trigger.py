from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chatrlhf.errors import BadInputError
from chatrlhf.loop import trigger
from chatrlhf.loop.trainer_state import trainer_status
from chatrlhf.settings import RoundSettings, Settings, SftSettings
from storage.database import Database, open_database


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, sft=SftSettings(minimum_new=2))


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    opened = open_database(settings.database_path)
    yield opened
    opened.close()


def test_stages_are_put_in_order(settings: Settings, db: Database) -> None:
    run = trigger.enqueue_round(settings, db, ["ppo", "sft"], "local")
    assert run.stages == ("sft", "ppo")


def test_a_round_keeps_the_settings_that_decide_it(settings: Settings, db: Database) -> None:
    run = trigger.enqueue_round(settings, db, ["reward"], "local")
    assert set(run.settings) == {"sft", "reward", "ppo", "round"}
    assert run.settings["sft"]["minimum_new"] == 2


@pytest.mark.parametrize("stages", [[], ["dpo"]])
def test_unknown_stages_are_refused(settings: Settings, db: Database, stages: list[str]) -> None:
    with pytest.raises(BadInputError, match="sft, reward and ppo"):
        trigger.enqueue_round(settings, db, stages, "local")


def test_where_rounds_start_on_request_only_nothing_is_counted_down(
    tmp_path: Path, db: Database
) -> None:
    automatic = Settings(tmp_path, round=RoundSettings(refit_every=3))
    on_request = Settings(tmp_path, round=RoundSettings(refit_every=3, automatic=False))
    assert trigger.next_refit_in(automatic, db) == 3
    assert trigger.next_refit_in(on_request, db) is None
    assert trainer_status(on_request, db)["next_refit_in"] is None
