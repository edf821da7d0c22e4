"""An external classifier as a reward, on tiny random-weight models of its own folder."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_classifier import LABELS, WORDS, tiny_config, write_classifier, write_tokenizer
from transformers import BertForMaskedLM

from chatrlhf.errors import ModelError
from chatrlhf.models.sequence_classifier import load_classifier

TEXTS = [("hello", "a cat sat"), ("the cat", "on the mat on the mat"), ("hello", "")]


def ids(text):
    return [WORDS.index(word) for word in text.split()]


def as_pair(prompt, reply):
    """Token ids and segments of a pair, from the definition of BERT's input."""
    first, second = [2, *ids(prompt), 3], [*ids(reply), 3]
    return first + second, [0] * len(first) + [1] * len(second)


@torch.no_grad()
def raw_logits(model, tokens, segments):
    out = model(input_ids=torch.tensor([tokens]), token_type_ids=torch.tensor([segments]))
    return out.logits[0].double().tolist()


@pytest.mark.parametrize("place", range(3))
def test_the_value_is_the_log_odds_of_the_label_for_prompt_and_reply(tmp_path, place):
    model = write_classifier(tmp_path)
    found = load_classifier(str(tmp_path), LABELS[place].upper()).logits(TEXTS, micro_batch=2)
    for value, (prompt, reply) in zip(found.tolist(), TEXTS, strict=True):
        weights = [math.exp(logit) for logit in raw_logits(model, *as_pair(prompt, reply))]
        share = weights[place] / sum(weights)
        assert value == pytest.approx(math.log(share / (1 - share)), abs=1e-4)


def test_it_can_read_the_reply_alone(tmp_path):
    model = write_classifier(tmp_path)
    found = load_classifier(str(tmp_path), "toxic", reads="reply").logits(TEXTS, 8)
    for value, (_, reply) in zip(found.tolist(), TEXTS, strict=True):
        tokens = [2, *ids(reply), 3]
        fine, toxic, spam = raw_logits(model, tokens, [0] * len(tokens))
        assert value == pytest.approx(toxic - math.log(math.exp(fine) + math.exp(spam)), abs=1e-4)


@pytest.mark.parametrize("labels", [("score",), ("fine", "toxic")])
def test_independent_labels_and_a_single_output_give_their_logit(tmp_path, labels):
    model = write_classifier(tmp_path, labels, problem_type="multi_label_classification")
    found = load_classifier(str(tmp_path), labels[-1]).logits(TEXTS[:1], 1)
    assert found.item() == pytest.approx(raw_logits(model, *as_pair(*TEXTS[0]))[-1], abs=1e-5)


def test_a_long_text_is_shortened_and_a_batch_changes_nothing(tmp_path):
    write_classifier(tmp_path)
    classifier = load_classifier(str(tmp_path), "toxic")
    texts = [("hello " * 30, "a cat"), ("hello", "mat " * 40), *TEXTS]
    together = classifier.logits(texts, 8)
    single = torch.cat([classifier.logits([text], 1) for text in texts])
    assert torch.allclose(together, single, atol=1e-5)
    assert classifier.logits([], 4).shape == (0,)


def test_without_a_pad_token_texts_are_read_one_by_one(tmp_path):
    write_classifier(tmp_path)
    classifier = load_classifier(str(tmp_path), "toxic")
    expected = classifier.logits(TEXTS, 8)
    classifier._tokenizer.pad_token = None
    assert torch.allclose(classifier.logits(TEXTS, 8), expected, atol=1e-5)


def test_an_unknown_label_names_those_that_there_are(tmp_path):
    write_classifier(tmp_path)
    with pytest.raises(ModelError, match="no label 'rude'; it has fine, toxic, spam"):
        load_classifier(str(tmp_path), "rude")


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such", "nothing", "a/b/c", "~/none"])
def test_a_missing_folder_says_what_to_do(name):
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        load_classifier(name, "toxic")


def test_a_model_that_never_learned_to_classify_is_refused(tmp_path):
    BertForMaskedLM(tiny_config()).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="was not trained to classify"):
        load_classifier(str(tmp_path), "toxic")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        load_classifier(str(tmp_path), "toxic")
