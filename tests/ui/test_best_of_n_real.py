"""Best of N from the HTTP API down to a tiny model: the best by somebody else's arithmetic."""

from __future__ import annotations

import pytest
from fake_server import wait_until_loaded
from serving import RANK, random_lora, reward_terms, write_random_version, write_with_reward
from tiny_model import write_tiny_model

from chatrlhf.app import build_app
from chatrlhf.engine.engine import Engine
from chatrlhf.engine.requests import ChatMessage
from chatrlhf.loop.open_engine import Opened
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.scored_reply import context_and_reply
from chatrlhf.settings import load_settings
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward import read_features
from storage import conversations, versions

ASK = {"text": "tell me about the cat", "seed": 11, "max_new_tokens": 16, "temperature": 1.0}
ASK |= {"top_p": 1.0}


class Rewarding:
    """What ``write_with_reward`` needs of a serving."""

    def __init__(self, base, bank, folder):
        self.base, self.bank, self.folder = base, bank, folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def loaded(folder):
    base = load_base_model(folder, quantization="fp32", device="cpu")
    return base, LoraBank(base.model, RANK, float(RANK))


@pytest.fixture
def app(model_folder, tmp_path):
    """A server whose ``v1`` has a reward model; ``v0`` has none."""

    def open_tiny(db, settings, _progress):
        base, bank = loaded(model_folder)
        settings.versions_dir.mkdir(parents=True)
        write_random_version(base, bank, settings.versions_dir, "v0", seed=3)
        rewarding = Rewarding(base, bank, settings.versions_dir)
        write_with_reward(rewarding, "v1", reward_terms(base))
        for name in ("v0", "v1"):
            versions.register_version(db, name, None, None, "", {}, "")
        versions.set_alias(db, "live", "v1")
        engine = Engine(base, bank, settings.engine)
        return Opened(engine, lambda name: settings.versions_dir / name)

    settings = load_settings(tmp_path / "data", {"chat": {"duels": 0.0}}, environment={})
    built = build_app(settings, with_trainer=False, open_engine=open_tiny)
    built.start()
    wait_until_loaded(built)
    yield built
    built.stop()


@pytest.fixture
def ask(client):
    def post(**body):
        made = client.post("/api/conversations", json={}).json()["id"]
        answer = client.post(f"/api/conversations/{made}/turns", json={**ASK, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


@pytest.fixture
def trainers_scores(model_folder):
    """Scores of finished or unfinished replies as the trainer computes them, on its own base."""

    def score(replies):
        base, bank = loaded(model_folder)
        bank.add("reward")
        bank.load_state("reward", random_lora(bank, 2))
        model = RewardModel(base, bank, "reward", ScalarHead(base.hidden_size))
        asked = [ChatMessage("user", ASK["text"])]
        sequences = [
            TokenSequence.of_reply(
                *context_and_reply(base.chat_format, asked, text, finished=ended, longest=512)
            )
            for text, ended in replies
        ]
        return reward_terms(base).scores(read_features(model, sequences, 8)).total.tolist()

    return score


def stored(app, turn):
    return conversations.get_turn(app.db, turn["turn_id"])


def test_best_shows_the_highest_scored_of_all_candidates(app, ask, trainers_scores):
    for seed in range(20):
        drawn = ask(replies=8, seed=seed, max_new_tokens=60)["replies"]  # all of them, unchosen
        if len({reply["finish_reason"] for reply in drawn}) == 2:
            break
    assert {reply["finish_reason"] for reply in drawn} == {"stop", "length"}
    expected = trainers_scores([(one["text"], one["finish_reason"] == "stop") for one in drawn])
    ranked = sorted(range(8), key=lambda row: -expected[row])
    assert ranked[:3] != sorted(ranked)[:3]  # not just the first ones

    body = {"seed": seed, "max_new_tokens": 60}
    turn = stored(app, ask(replies=3, candidates=8, choose="best", **body))
    assert turn.choice.version == "v1"
    assert turn.choice.scores == pytest.approx(expected, abs=1e-3)
    assert {reply.candidate for reply in turn.replies} == set(ranked[:3])
    for reply in turn.replies:
        assert reply.text == drawn[reply.candidate]["text"]
        assert reply.finish_reason == drawn[reply.candidate]["finish_reason"]
        assert reply.score == pytest.approx(expected[reply.candidate], abs=1e-3)
        assert reply.version == "v1"


def test_the_same_seed_gives_the_same_choice_in_the_same_positions(app, ask):
    def shown(**body):
        turn = stored(app, ask(replies=3, candidates=6, **body))
        return [(one.text, one.candidate, one.score, one.slot_type) for one in turn.replies]

    assert shown() == shown()
    assert [slot for *_, slot in shown()].count("best") == 1
    orders = {tuple(row for _, row, _, _ in shown(choose="best", seed=seed)) for seed in range(4)}
    assert any(list(order) != sorted(order) for order in orders)


def test_a_reply_can_be_made_again_from_what_is_stored(app, client, ask):
    turn = stored(app, ask(replies=2, candidates=7, choose="best"))
    again = ask(replies=7)["replies"]
    assert [again[one.candidate]["text"] for one in turn.replies] == [
        one.text for one in turn.replies
    ]


def test_a_version_without_a_reward_model_shows_replies_as_drawn(app, client, ask):
    client.post("/api/versions/v0/promote")
    turn = stored(app, ask(replies=3, candidates=8))
    assert turn.choice.note.startswith("v0 has no reward model.")
    assert {reply.slot_type for reply in turn.replies} == {"policy"}
    client.post("/api/versions/v1/promote")
    assert stored(app, ask(replies=3, candidates=8)).choice.note == ""


def test_a_reward_model_that_breaks_costs_no_reply(app, ask):
    (app.settings.versions_dir / "v1" / "reward" / "head.safetensors").write_bytes(b"broken")
    turn = stored(app, ask(replies=3, candidates=8))
    assert {reply.state for reply in turn.replies} == {"complete"}
    assert "changed since it was published" in turn.choice.note
