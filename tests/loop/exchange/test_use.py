"""What is imported is trained on; what is exported opens in `datasets` and TRL."""

from __future__ import annotations

import json

import datasets
import pytest
from exchanged import dump, load
from tiny_model import write_tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.data_utils import is_conversational

from chatrlhf.loop.datasets import load_round_data
from chatrlhf.models.base_model import load_base_model
from chatrlhf.settings import load_settings
from storage import rankings

IGNORED = -100  # the label that cross-entropy leaves out

ARGILLA = {
    "fields": {"prompt": "why?", "reply1": "a", "reply2": "bb", "reply3": "ccc"},
    "responses": {
        "order": [
            {"value": ["reply2", "reply1", "reply3"], "user_id": "ann"},
            {"value": ["reply2", "reply3", "reply1"], "user_id": "bob"},
        ]
    },
}
ROWS = [
    {"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
    ARGILLA,
    {"prompt": "Say so", "completion": "So."},
    {"prompt": "Say so", "completion": "Never", "label": False},
    {"prompt": "Only a prompt"},
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("m") / "tiny", hidden=32)


@pytest.fixture
def filled(db):
    assert load(db, ROWS).failed == 0
    return db


def test_a_round_sees_imported_rankings_labels_demonstrations_and_prompts(
    filled, model_folder, tmp_path
):
    chat_format = load_base_model(model_folder, quantization="fp32").chat_format
    settings = load_settings(tmp_path)
    newest = rankings.newest_id(filled)
    data = load_round_data(filled, chat_format, settings, newest)
    assert [one.ranks for one in data.rankings] == [(1, 2), (2, 1, 3), (3, 1, 2)]
    assert [one.weight for one in data.rankings] == [1.0, 0.5, 0.5]  # two raters of one turn
    assert data.agreement == (2, 3)  # of three pairs, they differ on the last two replies
    pair = data.rankings[0].sequences[0]
    prompt = chat_format.encode_prompt(rankings.ranked_turns(filled)[0].messages)
    assert pair.token_ids == (*prompt, *chat_format.encode_reply("yes"))
    assert len(data.demonstrations) == 1
    # Only the unpaired reply: raters of a data set could not call all replies bad.
    assert [one.target for one in data.labels["bad"]] == [1.0]
    assert len(data.questions) >= 3
    assert rankings.count_new(filled, 0) == 3  # they start a round like any other


@pytest.mark.parametrize("form", ["jsonl", "parquet", "trl", "trl-sft"])
def test_every_export_opens_in_datasets(filled, tmp_path, form):
    kind = "parquet" if form == "parquet" else "json"
    path = tmp_path / f"out.{kind}"
    path.write_bytes(dump(filled, form))
    table = datasets.load_dataset(
        kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(table) == {"jsonl": 4, "parquet": 4, "trl": 7, "trl-sft": 1}[form]
    if form == "parquet":
        (turn,) = table[1]["turns"]
        assert [one["person"] for one in turn["rankings"]] == ["argilla:ann", "argilla:bob"]
    if form == "trl":
        assert table[0] == {
            "prompt": [{"role": "user", "content": "hi"}],
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }


def test_ties_and_all_bad_are_no_preferences(filled):
    (first, *_) = rankings.list_rankings(filled)
    rankings.revise_ranking(filled, first.id, dict.fromkeys(first.ranks, 1))
    assert len(dump(filled, "trl").splitlines()) == 6
    rankings.save_ranking(filled, first.turn_id, first.person_id, {}, all_bad=True)
    assert len(dump(filled, "trl").splitlines()) == 6


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("CI", "1")  # TRL reports each trainer that is made otherwise


def rows_of(db, form):
    table = datasets.Dataset.from_list([json.loads(one) for one in dump(db, form).splitlines()])
    assert is_conversational(table[0])
    return table


def test_trl_takes_the_preferences(filled, model_folder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    trainer = RewardTrainer(
        model,
        RewardConfig(str(tmp_path), bf16=False, use_cpu=True, report_to="none"),
        train_dataset=rows_of(filled, "trl"),
        processing_class=tokenizer,
    )
    chosen, rejected = (
        trainer.train_dataset[0]["chosen_ids"],
        trainer.train_dataset[0]["rejected_ids"],
    )
    assert "yes" in tokenizer.decode(chosen)
    assert "no" in tokenizer.decode(rejected)
    assert len(trainer.train_dataset) == 7
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    assert loss.isfinite()


def test_trl_takes_the_demonstrations(filled, model_folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    trainer = SFTTrainer(
        model,
        SFTConfig(str(tmp_path), bf16=False, use_cpu=True, report_to="none"),
        train_dataset=rows_of(filled, "trl-sft"),
        processing_class=tokenizer,
    )
    (row,) = trainer.train_dataset
    learned = [token for token in row["labels"] if token != IGNORED]
    assert "So." in tokenizer.decode(learned)
    assert "Say so" not in tokenizer.decode(learned)
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    assert loss.isfinite()
