"""Gradient checkpointing: the same gradients from less memory, whichever adapter is active."""

from __future__ import annotations

import pytest
import torch
from serving import random_lora
from tiny_model import write_tiny_model

from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.gradient_checkpointing import gradient_checkpointing
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy

FAMILIES = ["llama", "gemma3", "phi3"]


@pytest.fixture(scope="module", params=[(f, "fp32") for f in FAMILIES] + [("llama", "nf4")])
def parts(request, tmp_path_factory):
    family, quantization = request.param
    folder = write_tiny_model(tmp_path_factory.mktemp("m"), family, hidden=64, layers=3)
    base = load_base_model(folder, quantization=quantization, device="cpu", training=True)
    bank = LoraBank(base.model, 4, 4.0)
    for seed, name in enumerate(("one", "other")):
        bank.add(name, trainable=True)
        bank.load_state(name, random_lora(bank, seed))
    return base, bank


def states(parts, name, checkpointing):
    """Hidden states under an adapter, and the bytes kept for its backward pass."""
    base, bank = parts
    kept = []

    def pack(tensor):
        kept.append(tensor.nbytes)
        return tensor

    ids = torch.arange(70, 110).view(2, 20)
    policy = Policy(base, bank, name)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if checkpointing:
            with gradient_checkpointing(base, bank):
                hidden = policy.hidden_states(ids)
        else:
            hidden = policy.hidden_states(ids)
    return hidden, sum(kept)


def gradients(parts, checkpointing):
    """Of both adapters, through one backward pass, after all contexts have ended."""
    _, bank = parts
    names = ("one", "other")
    for name in names:
        for parameter in bank.parameters_of(name):
            parameter.grad = None
    outputs = [states(parts, name, checkpointing) for name in names]
    first, second = (hidden.float() for hidden, _ in outputs)
    (first.square().sum() + (first * second).sin().sum()).backward()
    found = [parameter.grad for name in names for parameter in bank.parameters_of(name)]
    return found, first.detach(), sum(size for _, size in outputs)


def test_gradients_are_equal_with_and_without(parts):
    plain, plain_states, plain_bytes = gradients(parts, checkpointing=False)
    found, found_states, found_bytes = gradients(parts, checkpointing=True)
    assert torch.equal(found_states, plain_states)
    assert all(bool(one.any()) for one in plain)
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    assert found_bytes < plain_bytes / 3


def test_dropout_stays_off(parts):
    base, bank = parts
    flags = [module.training for module in base.model.modules()]
    with gradient_checkpointing(base, bank):
        assert [module.training for module in base.model.modules()] == flags
        assert not base.model.training


def test_the_layers_are_as_before_even_after_an_error(parts):
    base, bank = parts
    with pytest.raises(KeyError), gradient_checkpointing(base, bank):
        raise KeyError
    for layer in base.decoder.layers:  # each runs its own forward again
        assert layer.forward.forward == type(layer).forward.__get__(layer)
