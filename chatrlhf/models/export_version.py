"""A version for other programs: a peft folder, a merged transformers model, or a GGUF adapter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from chatrlhf.errors import ConflictError, ModelError
from chatrlhf.models.adapter_files import verify_folder
from chatrlhf.models.weights import (
    load_tokenizer,
    load_weights,
    quiet_transformers,
    read_config,
    stored_quantization,
)

Progress = Callable[[str, float], None]

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def export_adapter(version: Path, target: Path) -> list[Path]:
    """Write the policy's adapter of a version's folder as a standard peft folder.

    Raises:
        ConflictError: the target exists.
        VersionError: a file of the version is missing or has changed.
    """
    verify_folder(version)
    with _new_folder(target) as folder:
        for name in ADAPTER_FILES:
            shutil.copyfile(version / name, folder / name)
    return sorted(target.iterdir())


def export_merged(
    version: Path,
    base: Path,
    target: Path,
    progress: Progress,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> list[Path]:
    """Write the base with a version's policy merged into its weights, as a transformers folder.

    Raises:
        ConflictError: the target exists.
        ModelError: the base cannot be loaded unquantized.
        VersionError: a file of the version is missing or has changed.
    """
    verify_folder(version)
    config = read_config(base)
    if (stored := stored_quantization(config, base)) is not None:
        # Merging into rounded weights would round the adapter away.
        raise ModelError(
            f"{base} holds weights in {stored}, which an adapter cannot be merged into. Export the "
            "adapter alone, or choose the model's unquantized weights."
        )
    with _new_folder(target) as folder, quiet_transformers():
        from peft import PeftModel

        progress("Loading the base", 0.1)
        # In float32: a sum in bfloat16 would lose the low bits of the adapter before it is rounded.
        model = load_weights(
            base,
            config,
            quantization="fp32",
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        progress("Merging", 0.5)
        merged = PeftModel.from_pretrained(model, version).merge_and_unload()
        progress("Writing", 0.7)
        merged.to(dtype).save_pretrained(folder)
        load_tokenizer(base).save_pretrained(folder)
        progress("Written", 1.0)
    return sorted(target.iterdir())


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that gets its name when it is whole."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(f"{target} exists already; name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield unfinished
        os.chmod(unfinished, 0o755)  # as any new folder; that of mkdtemp is private
        if target.is_dir():
            target.rmdir()
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
