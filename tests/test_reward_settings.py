"""Settings of the reward: terms and weights from a file, the environment and the defaults."""

from __future__ import annotations

import json

import pytest

from chatrlhf.errors import SettingsError
from chatrlhf.loop.trainer_process import settings_environment
from chatrlhf.settings import load_settings


def loaded(tmp_path, toml="", **environment):
    (tmp_path / "chatrlhf.toml").write_text(toml, encoding="utf-8")
    return load_settings(tmp_path, environment=environment).reward


def test_weights_are_a_table_in_the_file(tmp_path):
    found = loaded(tmp_path, '[reward.weights]\nranking = 2.0\n"label:off-topic" = -1\n')
    assert found.weights == {"ranking": 2.0, "label:off-topic": -1.0}  # in place of the defaults


def test_weights_are_json_in_the_environment(tmp_path):
    text = json.dumps({"ranking": 0.5, "label:toxic": -2})
    found = loaded(tmp_path, CHATRLHF_REWARD_WEIGHTS=text)
    assert found.weights == {"ranking": 0.5, "label:toxic": -2.0}


def test_by_default_rankings_count_and_known_labels_too(tmp_path):
    weights = loaded(tmp_path).weights
    assert weights["ranking"] == 1.0
    assert weights["label:toxic"] < 0 < weights["label:good"]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("no json", "JSON object"),
        ("[1]", "dictionary"),
        ('{"rankings": 1}', "rankings"),
        ('{"label:Not A Label": 1}', "label:Not A Label"),
        ('{"ranking": "much"}', "number"),
        ('{"ranking": 1e999}', "finite"),
        ('{"ranking": 0}', "no term"),
        ("{}", "no term"),
        ('{"ranking": 1, "classifier": 1}', "set reward.classifier"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_words(tmp_path, weights, words):
    with pytest.raises(SettingsError, match="reward") as raised:
        loaded(tmp_path, CHATRLHF_REWARD_WEIGHTS=weights)
    assert words in str(raised.value)


def test_a_classifier_needs_a_label_and_a_weight(tmp_path):
    full = '[reward]\nclassifier = "a/b"\nclassifier_label = "x"\nweights = {classifier = 1.0}\n'
    assert loaded(tmp_path, full).classifier == "a/b"
    with pytest.raises(SettingsError, match="give it a weight"):
        loaded(tmp_path, '[reward]\nclassifier = "a/b"\nclassifier_label = "x"\n')
    with pytest.raises(SettingsError, match="classifier_label"):
        loaded(tmp_path, full.replace('classifier_label = "x"\n', ""))


def test_the_trainer_gets_the_very_same_weights(tmp_path):
    settings = load_settings(
        tmp_path, {"reward": {"weights": {"ranking": 0.1, "label:a-b": -3.0}}}, environment={}
    )
    again = load_settings(tmp_path, environment=settings_environment(settings))
    assert again == settings
