"""The decoder layer in the middle: its output as a by-product, and forward passes cut there.

Notation: B rows, L positions, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from chatrlhf.models.base_model import BaseModel


def middle_layer(base: BaseModel) -> nn.Module:
    """The decoder layer in the middle; of an even number the earlier one."""
    layers = _decoder_layers(base)
    return layers[_middle(layers)]


def layers_above_middle(base: BaseModel) -> list[nn.Module]:
    """The decoder layers that read the middle layer's output, directly or not."""
    layers = _decoder_layers(base)
    return layers[_middle(layers) + 1 :]


@contextmanager
def middle_states(base: BaseModel) -> Iterator[list[Tensor]]:
    """Collect what the middle layer puts out, (B, L, H) for each forward pass inside."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _given: Any, output: Any) -> None:
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

    with _replaced(layers_above_middle(base), unchanged):
        yield


@contextmanager
def upper_half(base: BaseModel, middle: Tensor) -> Iterator[None]:
    """Forward passes inside begin behind the middle layer, with its output (B, L, H) given.

    The layers up to the middle are not run, so nothing flows back into them.
    """
    layers = _decoder_layers(base)

    def given(*_: Any, **__: Any) -> Tensor:
        return middle

    with _replaced(layers[: _middle(layers) + 1], given):
        yield


def _decoder_layers(base: BaseModel) -> list[nn.Module]:
    return list(base.decoder.get_submodule("layers").children())


def _middle(layers: Sequence[nn.Module]) -> int:
    return (len(layers) - 1) // 2


@contextmanager
def _replaced(layers: Sequence[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Give layers another ``forward``: an attribute of the instance goes before the class's."""
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = forward
    try:
        yield
    finally:
        for layer, one in zip(layers, before, strict=True):
            if one is None:
                del layer.forward
            else:
                layer.forward = one
