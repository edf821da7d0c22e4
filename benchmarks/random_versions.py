"""Versions with random weights in a data folder, for measurements that only need them to differ."""

from __future__ import annotations

from pathlib import Path

import torch

from chatrlhf.loop.publish import base_fields, publish_starter
from chatrlhf.models import catalog
from chatrlhf.models.adapter_files import AdapterShape, Component, write_version
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.settings import load_settings
from storage import versions
from storage.database import open_database


def publish_random_versions(data: Path, model: str, count: int, scale: float = 0.02) -> list[str]:
    """Make ``v0`` as a server would, and ``count`` versions of random weights; their names.

    Call it before the server starts.
    """
    settings = load_settings(data, {"model": {"name": model}})
    data.mkdir(parents=True, exist_ok=True)
    db = open_database(settings.database_path)
    source = catalog.ensure_local(catalog.find_source(model), lambda _stage, _fraction: None)
    base = load_base_model(source, quantization=settings.model.quantization)
    bank = LoraBank(base.model, settings.model.lora_rank, settings.model.lora_alpha)
    publish_starter(db, settings, base, bank)
    shape = AdapterShape(bank.rank, bank.alpha, bank.target_modules)
    bank.add("zero")
    zero = bank.state_of("zero")
    names = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        lora = {key: torch.randn(zero[key].shape, generator=generator) * scale for key in zero}
        name = versions.next_version_name(db)
        fields = {**base_fields(base, settings), "parent": "v0"}
        sha256 = write_version(
            settings.versions_dir, name, {"policy": Component(lora)}, shape, fields
        )
        versions.register_version(db, name, "v0", None, sha256, {}, "Random weights.")
        names.append(name)
    db.close()
    return names
