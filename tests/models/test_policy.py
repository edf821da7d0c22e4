"""The policy's log-probabilities against the logits of the whole model."""

from __future__ import annotations

import pytest
import torch
from serving import random_lora
from tiny_model import never_sampled, write_tiny_model

from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.training.batches import TokenSequence, make_batch

SEQUENCES = [
    TokenSequence.of_reply([5, 6, 7], [80, 90, 100, 110]),
    TokenSequence.of_reply([8, 9, 200, 201, 202], [30]),
    TokenSequence.of_reply([11], [12, 13]),
]


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def parts(request, tmp_path_factory):
    extra = {"final_logit_softcapping": 2.0} if request.param == "gemma3" else {}
    folder = write_tiny_model(tmp_path_factory.mktemp("m"), request.param, hidden=32, **extra)
    base = load_base_model(folder, quantization="fp32", device="cpu")
    bank = LoraBank(base.model, 4, 4.0)
    for seed, name in enumerate(("policy", "reference")):
        bank.add(name, trainable=name == "policy")
        bank.load_state(name, random_lora(bank, seed))
    return base, bank


def statistics(policy, sequences, temperature=1.0, pad=0):
    batch = make_batch(sequences, pad)
    return policy.token_statistics(
        batch.token_ids, batch.predicts_response, batch.targets, temperature
    )


def by_definition(base, bank, adapter, sequence, temperature):
    """(log-probability, entropy) of every response token, by the model's own logits."""
    with bank.using(adapter), torch.no_grad():
        ids = torch.tensor([sequence.token_ids])
        logits = base.model(input_ids=ids, use_cache=False).logits[0].double()
    logits[:, never_sampled(base)] = -1e30
    log_p = torch.log_softmax(logits / temperature, -1)
    places = [place for place, flag in enumerate(sequence.is_response) if flag]
    return [
        (
            float(log_p[place - 1, sequence.token_ids[place]]),
            float(-(log_p[place - 1].exp() * log_p[place - 1]).sum()),
        )
        for place in places
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("adapter", ["policy", None])
def test_statistics_are_those_of_the_models_logits(parts, adapter, temperature):
    base, bank = parts
    with torch.no_grad():
        found = statistics(Policy(base, bank, adapter), SEQUENCES, temperature)
    expected = [
        pair for one in SEQUENCES for pair in by_definition(base, bank, adapter, one, temperature)
    ]
    assert found.logprobs.tolist() == pytest.approx([p for p, _ in expected], abs=1e-4)
    assert found.entropies.tolist() == pytest.approx([e for _, e in expected], abs=1e-4)


@torch.no_grad()
def test_right_padding_and_its_token_change_nothing(parts):
    base, bank = parts
    policy = Policy(base, bank, "policy")
    alone = torch.cat([statistics(policy, [one]).logprobs for one in SEQUENCES])
    for pad in (0, base.chat_format.end_token_id, 90):
        together = statistics(policy, SEQUENCES, pad=pad).logprobs
        assert torch.allclose(together, alone, atol=1e-5)


@torch.no_grad()
def test_as_reference_is_the_other_adapter_on_the_same_weights(parts):
    base, bank = parts
    policy = Policy(base, bank, "policy", "reference")
    own = statistics(policy, SEQUENCES).logprobs
    with policy.as_reference() as reference:
        theirs = statistics(reference, SEQUENCES).logprobs
    direct = statistics(Policy(base, bank, "reference"), SEQUENCES).logprobs
    assert torch.equal(theirs, direct)
    assert not torch.allclose(own, theirs, atol=1e-2)
    assert torch.equal(statistics(policy, SEQUENCES).logprobs, own)
    with Policy(base, bank, "policy").as_reference() as bare:
        untouched = statistics(Policy(base, bank, None), SEQUENCES).logprobs
        assert torch.equal(statistics(bare, SEQUENCES).logprobs, untouched)


def test_gradient_of_a_log_probability_is_the_slope_of_the_models_own(parts):
    base, bank = parts
    policy = Policy(base, bank, "policy")
    parameter = policy.parameters()[-1]
    parameter.grad = None
    statistics(policy, SEQUENCES[:1]).logprobs.sum().backward()
    width = 1e-3
    totals = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter[1, 2] += sign * width
        totals.append(sum(p for p, _ in by_definition(base, bank, "policy", SEQUENCES[0], 1.0)))
        with torch.no_grad():
            parameter[1, 2] -= sign * width
    slope = (totals[0] - totals[1]) / (2 * width)
    assert parameter.grad[1, 2].item() == pytest.approx(slope, abs=2e-3, rel=0.02)


def test_the_bare_base_has_nothing_to_train(parts):
    assert Policy(*parts, None).parameters() == []
