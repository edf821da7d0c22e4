"""The decoder layer in the middle: its output as a by-product, and forward passes cut there.

Notation: B rows, L positions, H hidden size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.decoder_layers import decoder_layers, replaced_forward


def middle_layer(base: BaseModel) -> nn.Module:
    """The decoder layer in the middle; of an even number the earlier one."""
    layers = decoder_layers(base)
    return layers[_middle(layers)]


def layers_above_middle(base: BaseModel) -> list[nn.Module]:
    """The decoder layers that read the middle layer's output, directly or not."""
    layers = decoder_layers(base)
    return layers[_middle(layers) + 1 :]


def layers_up_to_middle(base: BaseModel) -> list[nn.Module]:
    """The decoder layers that the middle layer's output depends on."""
    layers = decoder_layers(base)
    return layers[: _middle(layers) + 1]


@contextmanager
def middle_states(base: BaseModel) -> Iterator[list[Tensor]]:
    """Collect what the middle layer puts out, (B, L, H) for each forward pass inside.

    Of passes in this thread: others may use the same layers.
    """
    found: list[Tensor] = []
    here = threading.get_ident()

    def keep(_module: nn.Module, _given: Any, output: Any) -> None:
        if threading.get_ident() == here:
            found.append(output[0] if isinstance(output, tuple) else output)

    handle = middle_layer(base).register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def lower_half(base: BaseModel) -> Iterator[None]:
    """Forward passes inside end with the middle layer: those above it change nothing."""

    def unchanged(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states

    with replaced_forward(layers_above_middle(base), lambda _: unchanged):
        yield


@contextmanager
def upper_half(base: BaseModel, middle: Tensor) -> Iterator[None]:
    """Forward passes inside begin behind the middle layer, with its output (B, L, H) given.

    The layers up to the middle are not run, so nothing flows back into them.
    """

    def given(*_: Any, **__: Any) -> Tensor:
        return middle

    with replaced_forward(layers_up_to_middle(base), lambda _: given):
        yield


def _middle(layers: Sequence[nn.Module]) -> int:
    return (len(layers) - 1) // 2
