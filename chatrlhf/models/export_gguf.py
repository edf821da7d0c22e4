"""A LoRA adapter as a GGUF file, which llama.cpp and programs built on it read.

Needs the package ``gguf`` (``pip install 'chatrlhf[embedded]'``). Names follow llama.cpp's
``docs/`` and ``src/llama-adapter.cpp``: ``<tensor>.lora_a`` (r, in) and ``<tensor>.lora_b``
(out, r), the scale is alpha / r.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chatrlhf.errors import ConflictError, ModelError
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.weights import read_config

# transformers' model types, and llama.cpp's names of them.
_ARCHITECTURES = {
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "gemma2": "gemma2",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "llama": "llama",
    "mistral": "llama",
    "smollm3": "smollm3",
}
# llama.cpp turns pairs of these where transformers turns halves, so their rows stand otherwise.
_PERMUTED = {"llama": ("q_proj", "k_proj")}
_PREFIX = "base_model.model."


def export_gguf(version: Path, base: Path, target: Path) -> Path:
    """Write the policy's adapter of a version's folder as a GGUF file; returns its path.

    Raises:
        ConflictError: the target exists.
        ModelError: ``gguf`` is not installed, or has no names for this model's layers.
        VersionError: a file of the version is missing or has changed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ModelError(
            "The package gguf is not installed. Install it: pip install 'chatrlhf[embedded]'."
        ) from error
    if target.exists():
        raise ConflictError(f"{target} exists already; name a new file")
    config = read_config(base).get_text_config()
    architecture = _ARCHITECTURES.get(config.model_type)
    if architecture is None:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise ModelError(
            f"GGUF adapters are written for {known}, not for {config.model_type!r}. Export the "
            "adapter as it is, or --merged, and convert that with llama.cpp's own tools."
        )
    files = read_version(version)
    alpha = json.loads((version / "adapter_config.json").read_text(encoding="utf-8"))["lora_alpha"]
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    tensors = {
        _gguf_name(key, names): _arranged(key, tensor, architecture, config)
        for key, tensor in files.policy.lora.items()
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    writer = gguf.GGUFWriter(unfinished, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
    for name, tensor in sorted(tensors.items()):
        writer.add_tensor(name, tensor.float().contiguous().numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return unfinished.rename(target)


def _gguf_name(key: str, names: Any) -> str:
    """``...q_proj.lora_A.weight`` as ``blk.0.attn_q.weight.lora_a``."""
    module, _, kind = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
    found = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
    if found is None:
        raise ModelError(f"llama.cpp has no name for the layer {module}; export it --merged.")
    return f"{found}.{kind.lower()}"


def _arranged(key: str, tensor: Tensor, architecture: str, config: Any) -> Tensor:
    """The tensor with its rows where llama.cpp expects them."""
    module, _, kind = key.removesuffix(".weight").rpartition(".")
    role = module.rpartition(".")[2]
    if kind != "lora_B" or role not in _PERMUTED.get(architecture, ()):
        return tensor
    heads = config.num_attention_heads if role == "q_proj" else config.num_key_value_heads
    rows, rank = tensor.shape
    halves = tensor.reshape(heads, 2, rows // heads // 2, rank)
    return torch.swapaxes(halves, 1, 2).reshape(rows, rank)
