"""Checkpoints of a round: one file a stage, replaced atomically, ignored when it does not fit.

A checkpoint names the round's dataset and base; a file of another dataset, another base, another
format, or one that does not parse counts as absent, and the stage starts again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from chatrlhf.flushing import flush

_FORMAT = "2"  # of the values; raised when they change


@dataclass(frozen=True)
class Checkpoint:
    """Tensors and small values of a stage."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix/``, without it."""
        start = f"{prefix}/"
        return {
            key.removeprefix(start): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(start)
        }


class Checkpoints:
    """The checkpoint files of one round."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity
        folder.mkdir(parents=True, exist_ok=True)

    def save(
        self, stage: str, parts: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]
    ) -> None:
        """Write a stage's checkpoint over the one before."""
        tensors = {
            f"{prefix}/{key}": tensor.detach().cpu().contiguous()
            for prefix, part in parts.items()
            for key, tensor in part.items()
        }
        temporary = self._path(stage).with_suffix(".tmp")
        metadata = {
            "format": _FORMAT,
            "identity": self.identity,
            "values": json.dumps(dict(values)),
        }
        save_file(tensors, temporary, metadata=metadata)
        flush(temporary)
        temporary.replace(self._path(stage))

    def load(self, stage: str) -> Checkpoint | None:
        """The newest checkpoint of a stage, if it belongs to this round's data and base."""
        path = self._path(stage)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                found = metadata.get("format"), metadata.get("identity")
                if found != (_FORMAT, self.identity):
                    return None
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return Checkpoint(tensors, json.loads(metadata["values"]))
        except (SafetensorError, OSError, ValueError, KeyError):
            return None

    def clear(self) -> None:
        """Delete the files; the round has ended."""
        for path in (*self.folder.glob("*.safetensors"), *self.folder.glob("*.tmp")):
            path.unlink(missing_ok=True)

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"
