"""The middle layer's states, in every family, without a second pass and without a trace."""

from __future__ import annotations

import pytest
import torch
from tiny_model import FAMILIES, write_tiny_model

from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.middle_layer import middle_layer, middle_states

TOKENS = torch.tensor([[5, 6, 7, 80, 90]])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("layers", "place"), [(1, 0), (2, 0), (3, 1)])
@torch.no_grad()
def test_they_are_those_that_transformers_puts_out(tmp_path, family, layers, place):
    folder = write_tiny_model(tmp_path / "m", family, hidden=32, layers=layers)
    base = load_base_model(folder, quantization="fp32", device="cpu")
    LoraBank(base.model, 4, 4.0)
    with middle_states(base) as found:
        expected = base.body(TOKENS)
    (states,) = found
    kept = {}
    for index, layer in enumerate(base.decoder.layers):
        layer.register_forward_hook(
            lambda _m, _i, out, index=index: kept.update(
                {index: out[0] if isinstance(out, tuple) else out}
            )
        )
    again = base.body(TOKENS)
    assert torch.equal(states, kept[place])
    assert states.shape == (1, 5, 32)
    assert torch.equal(again.last_hidden_state, expected.last_hidden_state)


def test_nothing_is_kept_afterwards(tmp_path):
    base = load_base_model(
        write_tiny_model(tmp_path / "m", hidden=32), quantization="fp32", device="cpu"
    )
    with pytest.raises(IndexError), middle_states(base) as found:
        base.body(torch.tensor([[10**6]]))
    assert not middle_layer(base)._forward_hooks
    base.body(TOKENS)
    assert found == []
    assert not middle_layer(base)._forward_hooks
