"""Is a folder a complete model: config, safetensors weights, tokenizer?"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from chatrlhf.errors import ModelError

WEIGHTS_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that lacks a part or whose weight files are cut short.

    Raises:
        ModelError: says which file is missing or damaged.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it is not a model folder.")
    for path in weight_files(folder):
        _check_weight_file(path)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer.json. Copy it from the model's origin.")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that the model consists of; they may not all exist.

    Raises:
        ModelError: there are none, or the index cannot be read.
    """
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index} is damaged: {error}. Get the model again.") from error
        return [folder / name for name in sorted(names)]
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise ModelError(
            f"{folder} has only pickled weights (.bin or .pt), which can run code when they are "
            "read. Use a safetensors version of the model."
        )
    raise ModelError(f"{folder} has no .safetensors weights.")


def _check_weight_file(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path} is missing. Get the model again.")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if 8 + length <= size else None
        if header is None:
            raise ValueError("the header is cut off")
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a safetensors file: {error}. Get it again.") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ModelError(f"{path} has {size} bytes instead of {expected}. Get it again.")
