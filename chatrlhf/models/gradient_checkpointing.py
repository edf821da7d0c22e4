"""Gradient checkpointing: less memory for a second forward pass of every decoder layer.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". transformers' own switch needs
``model.train()``, which would turn dropout on, and recomputes under whatever adapter is active when
the backward pass runs; here a layer is recomputed under the adapter of its forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.decoder_layers import Forward, decoder_layers, replaced_forward
from chatrlhf.models.lora import LoraBank


@contextmanager
def gradient_checkpointing(base: BaseModel, bank: LoraBank) -> Iterator[None]:
    """Keep of each decoder layer only its input; for forward passes that need gradients.

    The backward pass may come after the context has ended.
    """
    with replaced_forward(decoder_layers(base), partial(_checkpointed, bank)):
        yield


def _checkpointed(bank: LoraBank, forward: Forward) -> Forward:
    def run(*args: Any, **kwargs: Any) -> Any:
        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), bank.as_now()

        return checkpoint(
            partial(forward, **kwargs),
            *args,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is random: dropout is off
            context_fn=contexts,
        )

    return run
