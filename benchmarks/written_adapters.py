"""Adapter versions that a benchmark writes for the engine to load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from chatrlhf.models.adapter_files import (
    POLICY,
    AdapterShape,
    Component,
    read_version,
    write_version,
)
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.training.starter import starter_folder


def fresh_state(bank: LoraBank) -> dict[str, Tensor]:
    """An adapter that changes nothing yet."""
    bank.add("written")
    state = bank.state_of("written")
    bank.remove("written")
    return state


def start_state(base: BaseModel, bank: LoraBank) -> dict[str, Tensor]:
    """The shipped starter adapter where it was made for this base, else one that changes nothing.

    The bank must have the starter's rank for it.
    """
    if (starter_folder() / "manifest.json").exists():
        starter = read_version(starter_folder())
        if starter.manifest["base"]["sha256"] == base.base_sha256:
            return starter.policy.lora
    return fresh_state(bank)


def perturbed(state: Mapping[str, Tensor], *, seed: int, deviation: float) -> dict[str, Tensor]:
    """A copy with normal noise on every B, so that it changes replies."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + torch.randn(tensor.shape, generator=generator) * deviation
        if "lora_B" in name
        else tensor.clone()
        for name, tensor in state.items()
    }


def write_adapter(
    base: BaseModel, bank: LoraBank, parent: Path, name: str, state: Mapping[str, Tensor]
) -> Path:
    """Write a version; its folder."""
    shape = AdapterShape(bank.rank, bank.alpha, bank.target_modules)
    fields = {"base": {"name": base.folder.name, "sha256": base.base_sha256}}
    write_version(parent, name, {POLICY: Component(dict(state))}, shape, fields)
    return parent / name
