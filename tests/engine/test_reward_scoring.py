"""Scores by the engine are those of the trainer, and the chat goes on meanwhile."""

from __future__ import annotations

import pytest
import torch
from serving import random_lora, replies_of
from tiny_model import FAMILIES

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.errors import ConflictError, VersionError
from chatrlhf.models.adapter_files import AdapterShape, Component, write_version
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import FeatureScale, RewardTerms, Term
from chatrlhf.models.scored_reply import context_and_reply
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward import read_features

ASKED = (ChatMessage("user", "tell me about the cat"),)
REPLIES = ["the cat sat", "", "a dog ran to the house where people talk", "no", "a mat", "the mat"]


def terms_of(base, *, classifier=False):
    width = ScalarHead(base.hidden_size).weight.numel()
    generator = torch.Generator().manual_seed(1)
    terms = {
        "ranking": Term.linear(1.5, torch.randn(3, width, generator=generator)),
        "label:toxic": Term.linear(-0.5, torch.randn(1, width, generator=generator)),
    }
    if classifier:
        terms["classifier"] = Term.external(1.0)
    return RewardTerms(FeatureScale(torch.zeros(width), torch.ones(width)), terms, 0.1)


def write(serving, name, terms):
    base, bank = serving.base, serving.bank
    write_version(
        serving.folder,
        name,
        {
            "policy": Component(random_lora(bank, 1)),
            "reward": Component(random_lora(bank, 2), terms.state()),
        },
        AdapterShape(4, 4.0, bank.target_modules),
        {"base": {"name": "tiny", "sha256": base.base_sha256}},
    )
    return serving.folder / name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scores_are_those_of_the_trainer(serve, load, family):
    serving = serve(family)
    terms = terms_of(serving.base)
    found = serving.engine.score_replies(write(serving, "v7", terms), ASKED, REPLIES, 512)

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
    folder = write(serving, "v7", terms_of(serving.base))
    request = {"replies": 3, "max_new_tokens": 60, "temperature": 0.8}
    expected = serving.ask(**request)
    stream = serving.submit(**request)
    scores = [serving.engine.score_replies(folder, ASKED, REPLIES, 512) for _ in range(3)]
    assert replies_of(stream) == expected
    assert scores[0] == scores[1] == scores[2]
    assert "scoring" not in serving.bank.names


def test_a_long_conversation_is_cut_to_its_end(serve):
    serving = serve()
    folder = write(serving, "v7", terms_of(serving.base))
    long = (ChatMessage("user", "the cat " * 200),)
    (one,) = serving.engine.score_replies(folder, long, ["a mat"], 64).scores
    longer = (ChatMessage("user", "a dog " * 50 + "the cat " * 200),)
    (other,) = serving.engine.score_replies(folder, longer, ["a mat"], 64).scores
    assert one == other


def test_a_classifier_is_left_out_and_named(serve):
    serving = serve()
    with_it = write(serving, "v7", terms_of(serving.base, classifier=True))
    without = write(serving, "v8", terms_of(serving.base))
    found = serving.engine.score_replies(with_it, ASKED, REPLIES, 512)
    assert found.left_out == ("classifier",)
    assert found.scores == serving.engine.score_replies(without, ASKED, REPLIES, 512).scores


def test_versions_that_cannot_score_say_why(serve):
    serving = serve()
    with pytest.raises(ConflictError, match="v3 has no reward model"):
        serving.engine.score_replies(serving.write("v3"), ASKED, REPLIES, 512)
    terms = terms_of(serving.base)
    alone = RewardTerms(terms.scale, {"classifier": Term.external(1.0)})
    with pytest.raises(ConflictError, match="classifier alone"):
        serving.engine.score_replies(write(serving, "v7", alone), ASKED, REPLIES, 512)
    folder = write(serving, "v8", terms)
    (folder / "reward" / "head.safetensors").write_bytes(b"broken")
    with pytest.raises(VersionError, match="changed"):
        serving.engine.score_replies(folder, ASKED, REPLIES, 512)
