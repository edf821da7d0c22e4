"""The reward of replies: read, scored by every term, brought to one scale."""

from __future__ import annotations

import pytest
import torch
from planted import planted

from chatrlhf.models.reward_terms import FeatureScale, RewardTerms, Term
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward import Replies, Reward, read_features, score_sequences


class LengthClassifier:
    """The value of a reply is the number of its letters, and asks what it was given."""

    def __init__(self):
        self.given = []

    def logits(self, texts, micro_batch):
        self.given += texts
        return torch.tensor([float(len(reply)) for _, reply in texts])


def replies_of(examples):
    sequences = [one for example in examples for one in example.sequences]
    return Replies(sequences, [("question", "x" * place) for place in range(len(sequences))])


@pytest.fixture
def reward(lab):
    model = lab.reward_model()
    width = model.head.weight.numel()
    generator = torch.Generator().manual_seed(1)
    scale = FeatureScale(torch.zeros(width), torch.ones(width))
    terms = {
        "ranking": Term.linear(1.0, torch.randn(3, width, generator=generator)),
        "classifier": Term.external(-0.5),
    }
    return Reward(model, RewardTerms(scale, terms, penalty=0.2), LengthClassifier())


def test_scores_do_not_depend_on_the_micro_batch(lab, reward):
    model = lab.reward_model(seed=3, name="other")
    sequences = [one for example in planted(3, 1) for one in example.sequences]
    sequences.append(TokenSequence.of_reply([70] * 9, [80] * 12))
    whole = score_sequences(model, sequences, 100)
    assert torch.allclose(score_sequences(model, sequences, 3), whole, atol=1e-5)
    assert score_sequences(model, [], 3).shape == (0,)
    replies = replies_of(planted(4, 1))
    total = reward.score(replies, 100).total
    assert torch.allclose(reward.score(replies, 5).total, total, atol=1e-4)


def test_every_term_has_mean_zero_and_deviation_one_over_the_reference(reward):
    reference = replies_of(planted(8, 1))
    for _ in range(2):  # a second time starts from the raw values again
        reward.normalise(reference, 16)
        for name, value in reward.score(reference, 16).values.items():
            assert value.mean().item() == pytest.approx(0.0, abs=1e-4), name
            assert value.std().item() == pytest.approx(1.0, abs=1e-3), name
    lengths = torch.arange(24).float()
    expected = (lengths - lengths.mean()) / lengths.std()
    assert torch.allclose(reward.score(reference, 16).values["classifier"], expected, atol=1e-4)


def test_a_single_reference_reply_leaves_the_terms_as_they_are(reward):
    before = reward.terms
    one = replies_of(planted(1, 1))
    reward.normalise(Replies(one.sequences[:1], one.texts[:1]), 4)
    assert reward.terms is before


def test_the_total_is_the_weighted_sum_of_what_each_term_says(reward):
    replies = replies_of(planted(4, 1))
    reward.normalise(replies, 16)
    found = reward.score(replies, 16)
    features = read_features(reward.model, replies.sequences, 16)
    term = reward.terms.terms["ranking"]
    members = (features @ term.heads.T - term.means) / term.std
    lengths = torch.arange(12).float()
    expected = (
        members.mean(-1)
        - 0.5 * (lengths - lengths.mean()) / lengths.std()
        - 0.2 * members.std(-1, correction=0)
    )
    assert torch.allclose(found.total, expected, atol=1e-3)
    assert torch.allclose(sum(found.contributions.values()), found.total, atol=1e-5)


def test_the_classifier_reads_prompt_and_reply(reward):
    replies = replies_of(planted(1, 1))
    reward.score(replies, 16)
    assert reward.classifier.given == list(replies.texts)


def test_a_critic_starts_from_the_linear_terms(reward):
    replies = replies_of(planted(4, 1))
    reward.normalise(replies, 16)
    features = read_features(reward.model, replies.sequences, 16)
    own = reward.score(replies, 16).contributions["ranking"]
    assert torch.allclose(reward.head(features), own, atol=1e-3)


def test_a_classifier_without_a_term_and_a_term_without_a_classifier_are_refused(reward):
    with pytest.raises(ValueError, match="go together"):
        Reward(reward.model, reward.terms, None)
