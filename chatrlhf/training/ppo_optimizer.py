"""Adam over the policy's and the critic's tensors, and its state for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chatrlhf.errors import SettingsError

_EPSILON = 1e-5
_SEPARATOR = "."


def make_optimizer(
    kind: str, groups: Sequence[tuple[Sequence[nn.Parameter], float]], device: torch.device
) -> torch.optim.Optimizer:
    """An optimizer of ``kind`` over groups of (parameters, learning rate).

    ``adam8bit`` keeps its moments in 8 bits, in memory that the GPU may page out.

    Raises:
        SettingsError: the device cannot run it.
    """
    arguments: list[dict[str, Any]] = [
        {"params": list(parameters), "lr": rate} for parameters, rate in groups
    ]
    if kind == "adam":
        return torch.optim.Adam(arguments, eps=_EPSILON, fused=True)
    if device.type != "cuda":
        raise SettingsError(
            f"ppo.optimizer = {kind} needs a CUDA device, but the model is on {device.type}. "
            "Set ppo.optimizer = adam."
        )
    from bitsandbytes.optim import PagedAdam8bit

    made: torch.optim.Optimizer = PagedAdam8bit(arguments, eps=_EPSILON)
    return made


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of an optimizer's state under flat names: ``<parameter>.<name>``, or nested deeper."""
    flat: dict[str, Tensor] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}{_SEPARATOR}{key}", inner)
        else:
            flat[prefix] = torch.as_tensor(value).detach().clone()

    for index, slot in optimizer.state_dict()["state"].items():
        walk(str(index), slot)
    return flat


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` returned; the tensors given stay as they are."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, *path, last = name.split(_SEPARATOR)
        slot: dict[str, Any] = state.setdefault(int(index), {})
        for key in path:
            slot = slot.setdefault(key, {})
        # bitsandbytes counts steps in a plain number, torch in a float tensor.
        is_number = tensor.dim() == 0 and not tensor.is_floating_point()
        slot[last] = int(tensor) if is_number else tensor.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
