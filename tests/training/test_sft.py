"""Supervised fine-tuning on a tiny model."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tiny_model import never_sampled

from chatrlhf.errors import RoundError, RoundSkippedError
from chatrlhf.settings import SftSettings
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.sft import fit_demonstrations, mean_token_loss

SETTINGS = SftSettings(learning_rate=3e-3, epochs=2, batch_size=3, max_tokens=16)


def demonstrations(count=10):
    """After any prompt the model should say 100 101 102 ... and stop."""
    generator = torch.Generator().manual_seed(2)
    found = []
    for row in range(count):
        prompt = torch.randint(64, 310, (2 + row % 5,), generator=generator).tolist()
        found.append(TokenSequence.of_reply(prompt, [100, 101, 102, 103, 7][: 3 + row % 3]))
    return found


def loss_by_definition(lab, adapter, sequences):
    """Mean negative log-likelihood of response tokens, one sequence at a time."""
    losses = []
    for one in sequences:
        with torch.no_grad(), lab.bank.using(adapter):
            ids = torch.tensor([one.token_ids])
            logits = lab.base.model(input_ids=ids, use_cache=False).logits[0]
            logits[:, never_sampled(lab.base)] = -1e30
            log_p = logits.log_softmax(-1)
        losses += [
            -float(log_p[place - 1, token])
            for place, token in enumerate(one.token_ids)
            if one.is_response[place]
        ]
    return sum(losses) / len(losses)


def test_loss_is_the_mean_over_response_tokens_only(lab):
    policy = lab.policy(seed=1)
    expected = loss_by_definition(lab, "policy", demonstrations())
    assert mean_token_loss(policy, demonstrations()) == pytest.approx(expected, abs=1e-4)


def test_tokens_that_are_no_response_are_no_targets(lab):
    policy = lab.policy(seed=1)

    def loss(question):
        tokens = (5, 6, 100, 101, *question)
        return mean_token_loss(
            policy, [TokenSequence(tokens, (False, False, True, True) + (False,) * 3)]
        )

    assert loss((70, 80, 90)) == pytest.approx(loss((200, 201, 202)), abs=1e-6)


def test_the_first_steps_loss_is_that_of_its_batch(lab):
    policy = lab.policy(seed=1)
    sequences = demonstrations(3)
    expected = loss_by_definition(lab, "policy", sequences)
    steps = []
    fit_demonstrations(policy, sequences, SETTINGS, 0, steps.append)
    assert steps[0].loss == pytest.approx(expected, abs=1e-4)


def test_fitting_lowers_the_loss_and_touches_only_the_policy(lab):
    policy = lab.policy()
    lab.adapter("other", seed=4)
    before = {name: lab.bank.fingerprint(name) for name in lab.bank.names}
    first = mean_token_loss(policy, demonstrations())
    settings = dataclasses.replace(SETTINGS, learning_rate=3e-2, epochs=10)
    fit_demonstrations(policy, demonstrations(), settings, seed=0)
    # A frozen random head of 320 tokens starts near ln 320 = 5.8 and cannot go far below 2.6.
    assert first > 5.0
    assert mean_token_loss(policy, demonstrations()) < 3.0
    changed = {name for name in lab.bank.names if lab.bank.fingerprint(name) != before[name]}
    assert changed == {"policy"}


def test_the_same_seed_gives_the_same_adapter_and_another_gives_another(make_lab):
    def fitted(seed):
        lab = make_lab()
        fit_demonstrations(lab.policy(), demonstrations(), SETTINGS, seed)
        return lab.bank.fingerprint("policy")

    assert fitted(0) == fitted(0) != fitted(1)


def test_every_step_is_reported_with_warm_up_and_decay(lab):
    steps = []
    settings = dataclasses.replace(SETTINGS, epochs=5, batch_size=5, warmup_fraction=0.2)
    fit_demonstrations(lab.policy(), demonstrations(10), settings, 0, steps.append)
    assert [(one.step, one.steps) for one in steps] == [(place, 10) for place in range(1, 11)]
    # Two of ten steps warm up; the other eight fall towards a tenth.
    expected = [0.5, 1.0] + [1.0 - 0.9 * place / 8 for place in range(8)]
    assert [one.learning_rate / 3e-3 for one in steps] == pytest.approx(expected)
    assert all(math.isfinite(one.loss) and one.grad_norm > 0 for one in steps)


@pytest.mark.parametrize(
    "sequences",
    [
        [],
        [TokenSequence.of_reply([1] * 16, [2, 3])],
        [TokenSequence.of_reply([1, 2], [])],
    ],
    ids=["none", "beyond max_tokens", "without reply"],
)
def test_nothing_to_learn_skips_the_round(lab, sequences):
    with pytest.raises(RoundSkippedError, match="demonstrations has a reply within 16 tokens"):
        fit_demonstrations(lab.policy(), sequences, SETTINGS, 0)


def test_unusable_demonstrations_are_left_out(lab):
    policy = lab.policy()
    steps = []
    useless = [TokenSequence.of_reply([1] * 16, [2, 3])] * 4
    fit_demonstrations(policy, [*demonstrations(3), *useless], SETTINGS, 0, steps.append)
    assert [one.steps for one in steps] == [2, 2]


def test_divergence_is_an_error_that_says_what_to_do(lab):
    settings = dataclasses.replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(RoundError, match=r"Lower sft\.learning_rate"):
        fit_demonstrations(lab.policy(), demonstrations(), settings, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-3},
        {"epochs": 1},
        {"batch_size": 2},
        {"max_tokens": 6},
        {"warmup_fraction": 0.9},
        {"max_grad_norm": 1e-6},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_changes_the_result(make_lab, change):
    def fitted(settings):
        lab = make_lab()
        fit_demonstrations(lab.policy(), demonstrations(), settings, 0)
        return lab.bank.fingerprint("policy")

    assert fitted(dataclasses.replace(SETTINGS, **change)) != fitted(SETTINGS)
