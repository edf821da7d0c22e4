"""Running statistics of softmax rows whose logits come block by block.

Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", algorithm 3, with a third
sum for the entropy.

Notation: N rows, V columns of a block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from chatrlhf.native import training as native


class Softmax(NamedTuple):
    """Of each row the log of the sum of exp(logit), and the entropy; both (N,) float32."""

    normaliser: Tensor
    entropies: Tensor


class SoftmaxSums:
    """Three numbers a row, (N,) float32 each.

    ``largest`` is the greatest logit so far; ``total`` and ``weighted`` are the sums of
    exp(logit - largest) and of that times (logit - largest).
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.largest = torch.full((rows,), -math.inf, device=device)
        self.total = torch.zeros(rows, device=device)
        self.weighted = torch.zeros(rows, device=device)

    def add(self, logits: Tensor, scratch: Tensor, kept: Tensor | None) -> None:
        """Take in a block of logits (N, V) float32.

        Overwrites ``logits`` and ``scratch`` (N, V); ``kept`` (N, V), if given, gets
        exp(logit - largest), with the largest after this block.
        """
        before, self.largest = self.largest, torch.maximum(self.largest, logits.amax(-1))
        shrink = (before - self.largest).exp()
        # In the first block there is nothing to move, and -inf times 0 would be no number.
        moved = torch.where(self.total > 0, self.total * (before - self.largest), self.total)
        shifted = logits.sub_(self.largest[:, None])
        exponentials = torch.exp(shifted, out=scratch)
        self.total = shrink * self.total + exponentials.sum(-1)
        if kept is not None:
            kept.copy_(exponentials)
        moment = shifted.mul_(exponentials).sum(-1)
        self.weighted = shrink * (self.weighted + moved) + moment

    def add_raw(self, raw: Tensor, temperature: float, kept: Tensor | None) -> None:
        """The same for logits before the temperature where ``native.fits(raw)``, in one pass."""
        self.largest = self.largest.clone()  # what was handed out stays
        native.add_block(raw, temperature, self.largest, self.total, self.weighted, kept)

    def softmax(self) -> Softmax:
        """The statistics of all that was taken in."""
        log_total = self.total.log()
        return Softmax(self.largest + log_total, log_total - self.weighted / self.total)
