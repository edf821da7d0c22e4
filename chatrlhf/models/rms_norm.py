"""Root mean square normalisation in few operations, forward and backward.

Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4:

    y = g * x / sqrt(mean(x^2) + eps)

transformers' modules take seven operations and autograd walks each of them back; on a CPU that was
a seventh of a training step (docs/decisions.md). Computed in float32 and rounded once.

Notation: N positions of any shape, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chatrlhf.native import training as native

_EPSILONS = ("eps", "variance_epsilon")


class _NativeRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        y, inverse, x = native.rms_norm(x, gain, eps)
        ctx.save_for_backward(x, gain, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, gain, inverse = ctx.saved_tensors
        return native.rms_norm_backward(grad, x, gain, inverse), None, None


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.float32, copy=True)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, inverse)
        return wide.mul_(inverse).mul_(gain).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # dx = (g dy - n mean(g dy n)) / rms with n = x / rms
        x, gain, inverse = ctx.saved_tensors
        scaled = grad.to(torch.float32, copy=True).mul_(gain)
        normed = x.to(torch.float32, copy=True).mul_(inverse)
        along = (scaled * normed).sum(-1, keepdim=True).div_(-x.shape[-1])
        return scaled.addcmul_(normed, along).mul_(inverse).to(x.dtype), None, None


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """``x`` (N, D) of any type, normalised; ``gain`` (D,) float32 is frozen."""
    kind = _NativeRmsNorm if native.fits(x) else _RmsNorm
    apply: Callable[..., Tensor] = kind.apply
    return apply(x, gain, eps)


@torch.no_grad()
def fuse_norms(model: nn.Module) -> int:
    """Let the frozen RMS norms of a model run as above; returns how many do.

    A module is taken over only if one of the two conventions, gain = w or gain = 1 + w, gives what
    the module itself gives.
    """
    count = 0
    for module in model.modules():
        if not type(module).__name__.endswith("RMSNorm"):
            continue
        weight = getattr(module, "weight", None)
        eps = next((getattr(module, name) for name in _EPSILONS if hasattr(module, name)), None)
        if not isinstance(weight, Tensor) or not isinstance(eps, float):
            continue
        for gain in (weight.float(), 1.0 + weight.float()):
            if _agrees(module, gain, eps):
                module.forward = _Forward(gain, eps)
                count += 1
                break
    return count


class _Forward:
    """What a fused module runs."""

    def __init__(self, gain: Tensor, eps: float) -> None:
        self.gain = gain
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.gain, self.eps)


def _agrees(module: nn.Module, gain: Tensor, eps: float) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, len(gain), generator=generator).to(gain.device)
    theirs = module(x)
    return bool(torch.allclose(theirs.float(), rms_norm(x, gain, eps), rtol=1e-3, atol=1e-5))
