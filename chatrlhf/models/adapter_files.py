"""One adapter version on disk: a standard peft folder, its companions, and a manifest.

    versions/v3/
      adapter_config.json  adapter_model.safetensors      the policy, loadable by PeftModel
      reward/                                              the same, plus head.safetensors
      value/                                               PPO's critic, the same
      manifest.json                                        sizes and hashes, written last

A folder without a manifest is not a version. Publishing writes a temporary folder, flushes every
file to the disk, writes the manifest and renames; a reader sees all of it or nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatrlhf.errors import VersionError
from chatrlhf.flushing import flush

MANIFEST = "manifest.json"
FORMAT = 1
POLICY, REWARD, VALUE = "policy", "reward", "value"
_NAME = re.compile(r"^v[0-9]+$")
_TEMPORARY = ".tmp-"
_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class AdapterShape:
    """What a LoRA adapter's configuration says: rank, alpha and the wrapped layers."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]


@dataclass(frozen=True)
class Component:
    """One adapter of a version: LoRA tensors under peft's names, and what it has beside them.

    ``head`` holds further tensors by name: the reward model's terms, a critic's head.
    """

    lora: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterFiles:
    """A verified version, read into memory. ``components`` has at least ``policy``."""

    components: dict[str, Component]
    manifest: dict[str, Any]

    @property
    def policy(self) -> Component:
        """The chat model's adapter."""
        return self.components[POLICY]


def write_version(
    parent: Path,
    name: str,
    components: Mapping[str, Component],
    shape: AdapterShape,
    fields: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a version so that it appears whole or not at all; returns the manifest's SHA-256.

    ``fields`` go into the manifest beside the file hashes: base, parent, dataset hash, metrics.

    Raises:
        VersionError: the name is not ``v<number>``, exists already, or a weight is not finite.
    """
    target = version_folder(parent, name)
    if target.exists():
        raise VersionError(f"{target} exists already; versions are never overwritten.")
    temporary = parent / f"{_TEMPORARY}{name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        sha256 = write_folder(temporary, components, shape, {**fields, "name": name}, dtype=dtype)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush(parent)
    return sha256


def write_folder(
    folder: Path,
    components: Mapping[str, Component],
    shape: AdapterShape,
    fields: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write components and manifest into a new folder; returns the manifest's SHA-256."""
    folder.mkdir(parents=True)
    for role, component in components.items():
        where = folder if role == POLICY else folder / role
        where.mkdir(exist_ok=True)
        _write_component(where, role, component, shape, dtype)
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {**fields, "format": FORMAT, "files": files}
    payload = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False).encode()
    for path in sorted(folder.rglob("*")):
        flush(path)
    (folder / MANIFEST).write_bytes(payload)
    flush(folder / MANIFEST)
    flush(folder)
    return hashlib.sha256(payload).hexdigest()


def read_version(folder: Path, expected_sha256: str | None = None) -> AdapterFiles:
    """Read a version and verify every byte of it.

    Raises:
        VersionError: no or another manifest, a file is missing or changed, a tensor file does
            not parse, or a value is not finite.
    """
    manifest = verify_folder(folder, expected_sha256)
    components: dict[str, Component] = {}
    for relative in manifest["files"]:
        path = folder / relative
        if path.name == "adapter_model.safetensors":
            role = POLICY if path.parent == folder else path.parent.name
            head = path.parent / "head.safetensors"
            verified = head.relative_to(folder).as_posix() in manifest["files"]
            components[role] = Component(lora=_load(path), head=_load(head) if verified else {})
    if POLICY not in components:
        raise VersionError(f"{folder} has no adapter_model.safetensors.")
    return AdapterFiles(components=components, manifest=manifest)


def verify_folder(folder: Path, expected_sha256: str | None = None) -> dict[str, Any]:
    """Check the manifest and the hash of every file; returns the manifest.

    Raises:
        VersionError: something is missing, added to the manifest or changed.
    """
    path = folder / MANIFEST
    try:
        payload = path.read_bytes()
        manifest: dict[str, Any] = json.loads(payload)
    except (OSError, ValueError) as error:
        raise VersionError(f"{path} cannot be read: {error}. The version is not whole.") from error
    found = hashlib.sha256(payload).hexdigest()
    if expected_sha256 and found != expected_sha256:
        raise VersionError(
            f"{path} is not the manifest that was published (SHA-256 {found[:12]}..., "
            f"expected {expected_sha256[:12]}...)."
        )
    format_ = manifest.get("format") if isinstance(manifest, dict) else None
    if format_ != FORMAT or not isinstance(manifest.get("files"), dict):
        raise VersionError(f"{path} has format {format_!r}, expected {FORMAT}.")
    for relative, expected in manifest["files"].items():
        _verify_file(folder, relative, expected)
    return manifest


def version_folder(parent: Path, name: str) -> Path:
    """Folder of a version.

    Raises:
        VersionError: the name is not ``v`` and a number.
    """
    if not _NAME.fullmatch(name):
        raise VersionError(f"{name!r} is no version name; they look like v3.")
    return parent / name


def remove_leftovers(parent: Path) -> int:
    """Delete temporary folders that a killed writer left; returns how many."""
    leftovers = [path for path in parent.glob(f"{_TEMPORARY}*") if path.is_dir()]
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
    return len(leftovers)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _write_component(
    folder: Path, role: str, component: Component, shape: AdapterShape, dtype: torch.dtype
) -> None:
    from peft import LoraConfig  # slow to import, needed only when writing

    for key, tensor in {**component.lora, **component.head}.items():
        if not bool(torch.isfinite(tensor).all()):
            raise VersionError(
                f"The {role} adapter diverged: {key} holds values that are not finite."
            )
    LoraConfig(
        task_type="CAUSAL_LM",
        r=shape.rank,
        lora_alpha=shape.alpha,  # type: ignore[arg-type, unused-ignore]
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(shape.target_modules),
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file(
        {key: tensor.to(dtype).contiguous() for key, tensor in component.lora.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    if component.head:
        head = {key: tensor.float().contiguous() for key, tensor in component.head.items()}
        save_file(head, folder / "head.safetensors", metadata={"format": "pt"})


def _load(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise VersionError(f"{path} does not parse: {error}.") from error
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise VersionError(f"{path}: {key} holds values that are not finite.")
    return tensors


def _verify_file(folder: Path, relative: str, expected: object) -> None:
    path = folder / relative
    if not path.resolve().is_relative_to(folder.resolve()):
        raise VersionError(f"{folder / MANIFEST} names {relative!r}, a file outside the version.")
    if not path.is_file():
        raise VersionError(f"{path} is missing.")
    if not isinstance(expected, dict) or (path.stat().st_size, file_sha256(path)) != (
        expected.get("bytes"),
        expected.get("sha256"),
    ):
        raise VersionError(f"{path} changed since it was published; its SHA-256 differs.")
