"""Scores by the engine are those of the trainer, and the chat goes on meanwhile."""

from __future__ import annotations

import pytest
from serving import random_lora, replies_of, reward_terms, write_with_reward
from tiny_model import FAMILIES

from chatrlhf.engine import reward_scoring
from chatrlhf.engine.requests import ChatMessage
from chatrlhf.engine.reward_scoring import ReplyScorer
from chatrlhf.errors import ConflictError, VersionError
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import RewardTerms, Term
from chatrlhf.models.scored_reply import context_and_reply
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward import read_features

ASKED = (ChatMessage("user", "tell me about the cat"),)
REPLIES = ["the cat sat", "", "a dog ran to the house where people talk", "no", "a mat", "the mat"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scores_are_those_of_the_trainer(serve, load, family):
    serving = serve(family)
    terms = reward_terms(serving.base)
    found = serving.engine.score_replies(
        write_with_reward(serving, "v7", terms), ASKED, REPLIES, 512
    )

    base, bank = load(family)
    bank.add("reward")
    bank.load_state("reward", random_lora(bank, 2))
    model = RewardModel(base, bank, "reward", ScalarHead(base.hidden_size))
    sequences = [
        TokenSequence.of_reply(
            *context_and_reply(base.chat_format, ASKED, text, finished=True, longest=512)
        )
        for text in REPLIES
    ]
    expected = terms.scores(read_features(model, sequences, 8))
    assert [one.total for one in found.scores] == pytest.approx(expected.total.tolist(), abs=1e-3)
    assert [one.spread for one in found.scores] == pytest.approx(expected.spread.tolist(), abs=1e-3)
    for one in found.scores:
        assert set(one.terms) == {"ranking", "label:toxic", "spread"}
        assert sum(one.terms.values()) == pytest.approx(one.total, abs=1e-4)
    assert found.left_out == ()


def test_scoring_leaves_streaming_replies_as_without_it(serve):
    serving = serve()
    folder = write_with_reward(serving, "v7", reward_terms(serving.base))
    request = {"replies": 3, "max_new_tokens": 60, "temperature": 0.8}
    expected = serving.ask(**request)
    stream = serving.submit(**request)
    scores = [serving.engine.score_replies(folder, ASKED, REPLIES, 512) for _ in range(3)]
    assert replies_of(stream) == expected
    assert scores[0] == scores[1] == scores[2]
    assert "scoring" not in serving.bank.names


def test_an_unfinished_reply_is_read_without_an_end_token(serve):
    serving = serve()
    folder = write_with_reward(serving, "v7", reward_terms(serving.base))
    score = serving.engine.score_replies
    ended = score(folder, ASKED, REPLIES, 512).scores
    mixed = score(folder, ASKED, REPLIES, 512, [True, False] * 3).scores
    assert mixed[0].total == pytest.approx(ended[0].total, abs=1e-3)
    assert abs(mixed[3].total - ended[3].total) > 0.1


def test_replies_that_stream_go_on_between_every_few_tokens_scored(serve, monkeypatch):
    serving = serve()
    folder = write_with_reward(serving, "v7", reward_terms(serving.base))
    expected = serving.engine.score_replies(folder, ASKED, REPLIES, 512).scores
    monkeypatch.setattr(reward_scoring, "TOKENS_AT_ONCE", 80)
    sizes, read = [], ReplyScorer._read

    def watched(self, tokens, found):
        sizes.append([len(context) + len(reply) for context, reply in tokens])
        read(self, tokens, found)

    monkeypatch.setattr(ReplyScorer, "_read", watched)
    found = serving.engine.score_replies(folder, ASKED, REPLIES, 512).scores
    assert sum(len(few) for few in sizes) == len(REPLIES)
    assert len(sizes) > 2
    assert any(len(few) > 1 for few in sizes)
    assert all(len(few) == 1 or max(few) * len(few) <= 80 for few in sizes)
    assert [one.total for one in found] == pytest.approx([one.total for one in expected], abs=1e-3)


def test_a_version_is_read_once(serve, monkeypatch):
    serving = serve()
    folder = write_with_reward(serving, "v7", reward_terms(serving.base))
    serving.engine.check_scoring(folder)
    first = serving.engine.score_replies(folder, ASKED, REPLIES, 512)
    monkeypatch.setattr("chatrlhf.engine.engine.read_version", None)
    assert serving.engine.score_replies(folder, ASKED, REPLIES, 512) == first


def test_a_long_conversation_is_cut_to_its_end(serve):
    serving = serve()
    folder = write_with_reward(serving, "v7", reward_terms(serving.base))
    long = (ChatMessage("user", "the cat " * 200),)
    (one,) = serving.engine.score_replies(folder, long, ["a mat"], 64).scores
    longer = (ChatMessage("user", "a dog " * 50 + "the cat " * 200),)
    (other,) = serving.engine.score_replies(folder, longer, ["a mat"], 64).scores
    assert one == other


def test_a_classifier_is_left_out_and_named(serve):
    serving = serve()
    with_it = write_with_reward(serving, "v7", reward_terms(serving.base, classifier=True))
    without = write_with_reward(serving, "v8", reward_terms(serving.base))
    found = serving.engine.score_replies(with_it, ASKED, REPLIES, 512)
    assert found.left_out == ("classifier",)
    assert found.scores == serving.engine.score_replies(without, ASKED, REPLIES, 512).scores


def test_versions_that_cannot_score_say_why(serve):
    serving = serve()
    with pytest.raises(ConflictError, match="v3 has no reward model"):
        serving.engine.score_replies(serving.write("v3"), ASKED, REPLIES, 512)
    terms = reward_terms(serving.base)
    alone = RewardTerms(terms.scale, {"classifier": Term.external(1.0)})
    with pytest.raises(ConflictError, match="classifier alone"):
        serving.engine.score_replies(write_with_reward(serving, "v7", alone), ASKED, REPLIES, 512)
    folder = write_with_reward(serving, "v8", terms)
    (folder / "reward" / "head.safetensors").write_bytes(b"broken")
    with pytest.raises(VersionError, match="changed"):
        serving.engine.score_replies(folder, ASKED, REPLIES, 512)
