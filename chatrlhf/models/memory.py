"""How much memory weights take: arithmetic from parameter counts, not measurements.

Linear layers of the decoder are quantized; embeddings and the LM head stay in 16 bit (32 bit in
``fp32``). nf4 stores 4 bits a weight and, with double quantization, 0.127 bits of scales (Dettmers
2023, section 3); int8 stores 8 bits and one float per row, which is less than 0.1 bits.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BYTES_PER_LINEAR_WEIGHT = {"nf4": 4.127 / 8, "int8": 8.1 / 8, "bf16": 2.0, "fp32": 4.0}
_BYTES_PER_OTHER_WEIGHT = {"nf4": 2.0, "int8": 2.0, "bf16": 2.0, "fp32": 4.0}
QUANTIZATIONS = tuple(_BYTES_PER_LINEAR_WEIGHT)


@dataclass(frozen=True)
class WeightCount:
    """``total`` parameters, of which ``unquantized`` are embeddings and an untied LM head."""

    total: int
    unquantized: int

    def memory_bytes(self, quantization: str) -> int:
        """Bytes of the loaded weights; caches, adapters and activations come on top."""
        linear = (self.total - self.unquantized) * _BYTES_PER_LINEAR_WEIGHT[quantization]
        return round(linear + self.unquantized * _BYTES_PER_OTHER_WEIGHT[quantization])


def count_weights(folder: Path) -> WeightCount:
    """Parameters in a folder's safetensors files, read from their headers alone."""
    total = unquantized = 0
    for path in folder.glob("*.safetensors"):
        for name, count, dimensions in _tensors(path):
            total += count
            if dimensions < 2 or "embed" in name or name.startswith("lm_head"):
                unquantized += count
    return WeightCount(total, unquantized)


def _tensors(path: Path) -> Iterator[tuple[str, int, int]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            count = 1
            for size in entry["shape"]:
                count *= size
            yield name, count, len(entry["shape"])


def readable_bytes(count: float) -> str:
    """A size for people: ``1.3 GB``; powers of ten, as disks are sold."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
