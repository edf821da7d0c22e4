"""Values by token: the critic's where there is one, else the reward model's own reading."""

from __future__ import annotations

import pytest
import torch
from serving import RANK, random_lora, reward_terms, write_with_reward
from tiny_classifier import write_classifier
from tiny_model import FAMILIES

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.errors import ConflictError
from chatrlhf.models.adapter_files import AdapterShape, Component, write_version
from chatrlhf.models.reward_model import ScalarHead, ValueModel
from chatrlhf.models.scored_reply import context_and_reply
from chatrlhf.models.sequence_classifier import load_classifier

ASKED = (ChatMessage("user", "tell me about the cat"),)
REPLIES = ["the cat sat on the mat", "", "a dog"]


def write(serving, name, components, **fields):
    base, bank = serving.base, serving.bank
    write_version(
        serving.folder,
        name,
        {"policy": Component(random_lora(bank, 1)), **components},
        AdapterShape(RANK, float(RANK), bank.target_modules),
        {"base": {"name": "tiny", "sha256": base.base_sha256}, **fields},
    )
    return serving.folder / name


def random_head(base, seed=3):
    head = ScalarHead(base.hidden_size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
        head.bias.fill_(0.5)
    return head


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_that_ppo_trains(serve, load, family):
    serving = serve(family)
    head = random_head(serving.base)
    critic = Component(random_lora(serving.bank, 5), head.state())
    reward = Component(random_lora(serving.bank, 2), reward_terms(serving.base).state())
    folder = write(serving, "v7", {"reward": reward, "value": critic})
    found = serving.engine.token_values(folder, ASKED, REPLIES, 512)
    assert found.source == "critic"

    base, bank = load(family)
    bank.add("critic")
    bank.load_state("critic", random_lora(bank, 5))
    model = ValueModel(base, bank, "critic", head, whole=True)
    for text, values in zip(REPLIES, found.replies, strict=True):
        context, reply = context_and_reply(
            base.chat_format, ASKED, text, finished=True, longest=512
        )
        tokens = torch.tensor([[*context, *reply]])
        place = torch.arange(tokens.shape[1])[None]
        is_response = place >= len(context)
        predicts = (place >= len(context) - 1) & (place < tokens.shape[1] - 1)
        with torch.no_grad():
            expected = model.values(tokens, is_response, predicts).tolist()
        mine = [values.before, *(token.value for token in values.tokens)]
        assert mine == pytest.approx(expected, abs=1e-3)
        # Some tokenizers begin a reply with a space.
        assert "".join(token.text for token in values.tokens).lstrip() == text


def test_without_a_critic_the_reward_model_reads_each_beginning(serve):
    serving = serve()
    terms = reward_terms(serving.base)
    folder = write_with_reward(serving, "v7", terms)
    found = serving.engine.token_values(folder, ASKED, ["the cat sat"], 512)
    assert found.source == "reward"
    (values,) = found.replies
    beginnings = ["the", "the cat", "the cat sat"]
    assert len(values.tokens) == 3
    # Cut as by a length limit, so that no end token stands after a beginning.
    scored = serving.engine.score_replies(folder, ASKED, beginnings, 512, [False] * 3)
    for token, score in zip(values.tokens, scored.scores, strict=True):
        linear = sum(value for name, value in score.terms.items() if name != "spread")
        assert token.value == pytest.approx(linear, abs=1e-3)
    assert "scoring" not in serving.bank.names


def test_a_version_without_a_reward_model_says_so(serve):
    serving = serve()
    with pytest.raises(ConflictError, match="v3 has no reward model"):
        serving.engine.token_values(serving.write("v3"), ASKED, REPLIES, 512)


def test_a_classifier_that_the_version_names_is_asked(serve, tmp_path):
    serving = serve()
    write_classifier(tmp_path / "classifier")
    terms = reward_terms(serving.base, classifier=True)
    named = {"name": str(tmp_path / "classifier"), "label": "toxic", "reads": "pair"}
    reward = {"reward": Component(random_lora(serving.bank, 2), terms.state())}
    folder = write(serving, "v7", reward, classifier=named)
    found = serving.engine.score_replies(folder, ASKED, REPLIES, 512)
    assert found.left_out == ()
    texts = [(ASKED[0].content, text) for text in REPLIES]
    expected = load_classifier(named["name"], "toxic").logits(texts, 8).tolist()
    # The term of the classifier has weight 1, mean 0 and deviation 1.
    assert [one.terms["classifier"] for one in found.scores] == pytest.approx(expected, abs=1e-4)


def test_a_classifier_that_is_gone_is_left_out(serve, tmp_path):
    serving = serve()
    terms = reward_terms(serving.base, classifier=True)
    named = {"name": str(tmp_path / "nowhere"), "label": "toxic", "reads": "pair"}
    reward = {"reward": Component(random_lora(serving.bank, 2), terms.state())}
    folder = write(serving, "v7", reward, classifier=named)
    for _ in range(2):
        assert serving.engine.score_replies(folder, ASKED, REPLIES, 512).left_out == ("classifier",)
