"""Draw the next tokens of several requests at once, each by its own settings.

Notation: R rows of a request, V tokens of the vocabulary.

On a CPU the native library draws, by the rules of ``sampling.py``: with the same logits and
uniform numbers the same tokens up to rounding, in a tenth of the time. Elsewhere torch does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chatrlhf.engine.requests import Sampling
from chatrlhf.engine.sampling import NOT_NUMBERS, sample
from chatrlhf.errors import ModelError
from chatrlhf.native import decoder as native


@dataclass(frozen=True)
class Wanted:
    """One token a row: logits (R, V) float32, and a uniform number in [0, 1) a row (R,) float64."""

    logits: Tensor
    sampling: Sampling
    uniforms: Tensor


@dataclass(frozen=True)
class Drawn:
    """Token ids (R,) int64 and their log-probabilities (R,) float32, both on the CPU."""

    token_ids: Tensor
    logprobs: Tensor


class Drawer:
    """Draws tokens; ``threads`` are those of the native library, None leaves it to torch."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self._library = None if threads is None else native.library()

    def draw(self, wanted: Sequence[Wanted]) -> list[Drawn | ModelError]:
        """The tokens of each request, or why it has none: its logits are not numbers."""
        if self._library is not None and all(_is_plain(one.logits) for one in wanted):
            return self._draw_natively(wanted)
        return [_draw_by_torch(one) for one in wanted]

    def _draw_natively(self, wanted: Sequence[Wanted]) -> list[Drawn | ModelError]:
        assert self._library is not None
        rows = [
            native.Draw(
                logits=one.logits.data_ptr() + 4 * row * one.logits.stride(0),
                uniform=uniform,
                temperature=one.sampling.temperature,
                top_p=one.sampling.top_p,
                top_k=min(one.sampling.top_k, one.logits.shape[-1]),
            )
            for one in wanted
            for row, uniform in enumerate(one.uniforms.tolist())
        ]
        drawn = (native.Draw * len(rows))(*rows)
        vocabulary = wanted[0].logits.shape[-1] if wanted else 0
        self._library.draw(drawn, len(rows), vocabulary, self.threads or 1)
        found: list[Drawn | ModelError] = []
        done = iter(drawn)
        for one in wanted:
            own = [next(done) for _ in range(one.logits.shape[0])]
            if any(row.token < 0 for row in own):
                found.append(ModelError(NOT_NUMBERS))
                continue
            logprobs = np.array([row.logprob for row in own], dtype=np.float32)
            found.append(
                Drawn(torch.tensor([row.token for row in own]), torch.from_numpy(logprobs))
            )
        return found


def draw_one(drawer: Drawer, wanted: Wanted) -> Drawn:
    """The tokens of a single request.

    Raises:
        ModelError: its logits are not numbers.
    """
    (found,) = drawer.draw([wanted])
    if isinstance(found, ModelError):
        raise found
    return found


def _draw_by_torch(one: Wanted) -> Drawn | ModelError:
    try:
        token_ids, logprobs = sample(one.logits, one.sampling, one.uniforms)
    except ModelError as error:
        return error
    return Drawn(token_ids.cpu(), logprobs.cpu())


def _is_plain(logits: Tensor) -> bool:
    on_cpu = logits.device.type == "cpu"
    return on_cpu and logits.dtype is torch.float32 and logits.stride(-1) == 1
