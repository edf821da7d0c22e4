"""Hashes that say whether two folders hold the same weights.

Adapters fit one base only; their manifest names it by ``base_sha256``. Hashing gigabytes takes
seconds, so hashes are kept in the models cache with the size and time of the file they are of.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from chatrlhf.settings import models_cache_dir

# Written by the program that saved the config, not properties of the model.
_INCIDENTAL = ("transformers_version", "_name_or_path", "_commit_hash", "dtype", "torch_dtype")


def file_sha256(path: Path, progress: Callable[[float], None] | None = None) -> str:
    """SHA-256 of a file in hexadecimal; ``progress`` gets the fraction done."""
    digest = hashlib.sha256()
    size, done = max(path.stat().st_size, 1), 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done / size)
    return digest.hexdigest()


def known_sha256(path: Path) -> str:
    """SHA-256 of a file, read from the models cache while its size and time are unchanged."""
    stat = path.stat()
    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    record = models_cache_dir() / "hashes" / f"{key}.json"
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # unknown or damaged: hash it again
    sha256 = file_sha256(path)
    _remember(record, {"path": str(path), "stamp": stamp, "sha256": sha256})
    return sha256


def base_sha256(folder: Path) -> str:
    """Hash of a model folder's config and weights; the same for copies of the folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in _INCIDENTAL:
        config.pop(name, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"\n{path.name} {known_sha256(path)}".encode())
    return digest.hexdigest()


def _remember(record: Path, content: dict[str, object]) -> None:
    temporary = record.with_suffix(f".{os.getpid()}")
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, record)
    except OSError:
        return  # a read-only or full cache only costs time
