"""A critic that trains above the middle layer only: the same values, the same gradients there."""

from __future__ import annotations

import pytest
import torch
from tiny_model import FAMILIES, write_tiny_model

from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.gradient_checkpointing import gradient_checkpointing
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_model import ScalarHead, ValueModel
from chatrlhf.training.batches import TokenSequence, make_batch

LAYERS = 4  # the middle is layer 1
SEQUENCES = [TokenSequence.of_reply((5, 6, 7), (8, 9, 10)), TokenSequence.of_reply((11,), (12, 13))]


@pytest.fixture(params=FAMILIES)
def critic(request, tmp_path):
    folder = write_tiny_model(tmp_path, request.param, layers=LAYERS)
    base = load_base_model(folder, quantization="fp32", training=True)
    bank = LoraBank(base.model, 4, 4.0)
    bank.add("value", trainable=True)
    generator = torch.Generator().manual_seed(0)
    head = ScalarHead(base.hidden_size)
    with torch.no_grad():
        for parameter in [*bank.parameters_of("value"), head.weight]:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return ValueModel(base, bank, "value", head)


def values_of(critic, trunk):
    batch = make_batch(SEQUENCES, 0)
    return critic.values(batch.token_ids, batch.is_response_token, batch.predicts_response, trunk)


def gradients(critic, trunk):
    parameters = [*critic.bank.parameters_of("value"), *critic.head.parameters()]
    for parameter in parameters:
        parameter.grad = None
    values_of(critic, trunk).square().sum().backward()
    return [parameter.grad for parameter in parameters]


def test_values_from_the_trunk_are_those_of_all_layers_to_the_last_bit(critic):
    trunk = critic.trunk(make_batch(SEQUENCES, 0).token_ids)
    assert not trunk.requires_grad
    assert torch.equal(values_of(critic, trunk), values_of(critic, None))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_layers_above_the_middle_get_gradients_and_these_are_the_same(critic, checkpointing):
    trunk = critic.trunk(make_batch(SEQUENCES, 0).token_ids)
    whole = gradients(critic, None)
    if checkpointing:
        with gradient_checkpointing(critic.base, critic.bank):
            upper = gradients(critic, trunk)
    else:
        upper = gradients(critic, trunk)
    per_layer = (len(whole) - 2) // LAYERS
    below, above = 2 * per_layer, len(whole)
    assert all(gradient is None for gradient in upper[:below])
    assert all(gradient is not None for gradient in whole[:below])
    for ours, theirs in zip(upper[below:above], whole[below:above], strict=True):
        assert torch.equal(ours, theirs)
    given = [p for p in critic.parameters() if p.grad is not None]
    assert len(given) == len(critic.parameters()) == above - below


def test_afterwards_all_layers_run_again(critic):
    batch = make_batch(SEQUENCES, 0)
    before = critic.base.body(batch.token_ids).last_hidden_state
    values_of(critic, critic.trunk(batch.token_ids))
    assert torch.equal(critic.base.body(batch.token_ids).last_hidden_state, before)


def test_a_whole_critic_has_no_trunk(critic):
    critic.whole = True
    assert critic.trunk(make_batch(SEQUENCES, 0).token_ids) is None
