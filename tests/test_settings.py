"""Settings that cannot work together are refused in words."""

from __future__ import annotations

import pytest

from chatrlhf.errors import SettingsError
from chatrlhf.settings import PpoSettings, load_settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minibatches": 32}, r"ppo.minibatches = 32 is more than ppo.batch_size = 16.*Lower"),
        ({"kl_coefficient": 0}, r"ppo.kl_target = 6 adapts.*Set a coefficient above 0"),
        ({"kl_horizon": 8}, r"ppo.kl_horizon = 8 replies is shorter than one batch of 16"),
        ({"max_new_tokens": 512}, r"no room for a prompt in reward.max_tokens = 512"),
        ({"kl_estimator": "k4"}, r"ppo.kl_estimator = 'k4': .*'k1', 'k2' or 'k3'"),
        ({"optimizer": "sgd"}, r"ppo.optimizer = 'sgd': .*'adam' or 'adam8bit'"),
        ({"stop_kl": -0.1}, r"ppo.stop_kl = -0.1"),
        ({"temperature": 0}, r"ppo.temperature = 0"),
        ({"missing_eos_score": float("nan")}, r"ppo.missing_eos_score = nan"),
        ({"learning_rate": float("inf")}, r"ppo.learning_rate = inf"),
        ({"top_p": 0.9}, r"ppo.top_p = 0.9: Unexpected keyword"),
        ({"batch_size": 0}, r"ppo.batch_size = 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_ppo_settings_are_refused_and_named(tmp_path, values, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(tmp_path, {"ppo": values}, environment={})


def test_a_coefficient_of_zero_is_fine_without_a_target(tmp_path):
    settings = load_settings(
        tmp_path, {"ppo": {"kl_coefficient": 0, "kl_target": 0}}, environment={}
    )
    assert settings.ppo.kl_coefficient == 0.0


def test_combinations_are_checked_however_settings_are_made():
    with pytest.raises(SettingsError, match=r"ppo.minibatches = 3"):
        PpoSettings(batch_size=2, minibatches=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"candidates": 3}, r"chat.candidates = 3 is fewer than chat.replies = 4.*set it to 0"),
        ({"candidates": 9}, r"chat.candidates = 9"),
        ({"candidates": -1}, r"chat.candidates = -1"),
        ({"choose": "worst"}, r"chat.choose = 'worst': .*'random', 'best' or 'best-and-random'"),
    ],
)
def test_impossible_candidates_are_refused_and_named(tmp_path, values, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(tmp_path, {"chat": values}, environment={})


def test_candidates_come_from_the_environment_too_and_are_off_by_default(tmp_path):
    assert load_settings(tmp_path, environment={}).chat.candidates == 0
    chosen = {"CHATRLHF_CHAT_CANDIDATES": "8", "CHATRLHF_CHAT_CHOOSE": "best"}
    chat = load_settings(tmp_path, environment=chosen).chat
    assert (chat.candidates, chat.choose) == (8, "best")
