"""The decoder layers of a base, and giving them another ``forward`` for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from chatrlhf.models.base_model import BaseModel

Forward = Callable[..., Any]


def decoder_layers(base: BaseModel) -> list[nn.Module]:
    """All of them, from the embeddings on."""
    return list(base.decoder.get_submodule("layers").children())


@contextmanager
def replaced_forward(
    layers: Sequence[nn.Module], replacement: Callable[[Forward], Forward]
) -> Iterator[None]:
    """Inside, each layer runs what ``replacement`` makes of its ``forward``; may be nested."""
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        # An attribute of the instance goes before the method of its class.
        layer.forward = replacement(layer.forward)
    try:
        yield
    finally:
        for layer, one in zip(layers, before, strict=True):
            if one is None:
                del layer.forward
            else:
                layer.forward = one
