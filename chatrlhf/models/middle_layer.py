"""The output of the decoder layer in the middle, as a by-product of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from chatrlhf.models.base_model import BaseModel


def middle_layer(base: BaseModel) -> nn.Module:
    """The decoder layer in the middle; of an even number the earlier one."""
    layers = list(base.decoder.get_submodule("layers").children())
    return layers[(len(layers) - 1) // 2]


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
