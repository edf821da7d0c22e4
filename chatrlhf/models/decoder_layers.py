"""The decoder layers of a base, and giving them another ``forward`` for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from chatrlhf.models.base_model import BaseModel

Forward = Callable[..., Any]
_installing = threading.Lock()


def decoder_layers(base: BaseModel) -> list[nn.Module]:
    """All of them, from the embeddings on."""
    return list(base.decoder.get_submodule("layers").children())


class _ForwardOfThread:
    """A layer's ``forward`` that every thread may replace for itself."""

    def __init__(self, plain: Forward) -> None:
        self.plain = plain
        self.mine = threading.local()

    @property
    def forward(self) -> Forward:
        """What the calling thread runs."""
        found: Forward = getattr(self.mine, "forward", self.plain)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)


@contextmanager
def replaced_forward(
    layers: Sequence[nn.Module], replacement: Callable[[Forward], Forward]
) -> Iterator[None]:
    """Inside, each layer runs what ``replacement`` makes of its ``forward``, in this thread.

    May be nested. Layers keep a switch afterwards that runs their own ``forward``.
    """
    switches = [_switch(layer) for layer in layers]
    before = [switch.forward for switch in switches]
    for switch, forward in zip(switches, before, strict=True):
        switch.mine.forward = replacement(forward)
    try:
        yield
    finally:
        for switch, forward in zip(switches, before, strict=True):
            switch.mine.forward = forward


def _switch(layer: nn.Module) -> _ForwardOfThread:
    with _installing:
        found = vars(layer).get("forward")
        if not isinstance(found, _ForwardOfThread):
            # An attribute of the instance goes before the method of its class.
            found = layer.forward = _ForwardOfThread(layer.forward)
        return found
