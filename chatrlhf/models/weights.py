"""Reads a model folder into a transformers model: safetensors only, no code of the model's own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chatrlhf.errors import ModelError

# A multimodal checkpoint names its language model so; the text model alone has plain names.
_TEXT_MODEL_KEYS = {
    r"^(model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(model\.)?language_model\.(model\.)?": "model.",
}
_NF4_BLOCK = 64  # bitsandbytes: weights that share a scale
_CPU_ROWS = 32  # bitsandbytes: rows that the CPU layout interleaves


def read_config(folder: Path) -> Any:
    """The transformers config of a folder.

    Raises:
        ModelError: the architecture is unknown, or wants to run code of its own.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"{folder / 'config.json'} is not a model that this program knows: {error}"
        ) from error


def stored_quantization(config: Any, folder: Path) -> str | None:
    """The quantization that a checkpoint was saved in; None for plain weights.

    Raises:
        ModelError: it was saved in a form that cannot carry adapters here.
    """
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    if stored.get("quant_method") == "bitsandbytes":
        if stored.get("load_in_8bit"):
            return "int8"
        if stored.get("bnb_4bit_quant_type") == "nf4":
            return "nf4"
    raise ModelError(
        f"{folder} holds weights already quantized by {stored.get('quant_method')!r}, which cannot "
        "carry adapters here. Use the model's unquantized safetensors."
    )


def load_weights(
    folder: Path,
    config: Any,
    *,
    quantization: str,
    device: torch.device,
    dtype: torch.dtype,
) -> Any:
    """A causal LM on ``device``; of a multimodal checkpoint only its language model.

    Raises:
        ModelError: weights are missing, damaged or do not fit into memory.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    options: dict[str, Any] = {}
    if stored_quantization(config, folder) is None:
        options["quantization_config"] = _bitsandbytes_config(quantization, dtype)
    text_config = config.get_text_config()
    if text_config is not config and type(text_config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        config = text_config
        options["key_mapping"] = _TEXT_MODEL_KEYS
    try:
        with quiet_transformers():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                device_map={"": device},
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{device} ran out of memory while {folder.name} was loaded. Choose a smaller model "
            "or quantization = nf4."
        ) from error
    except (ValueError, OSError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"{folder} cannot be loaded: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights, such as {missing[0]}. Get the model again."
        )
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        ModelError: it is damaged or of an unknown kind.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"The tokenizer of {folder} cannot be read: {error}") from error


def guard_cpu_nf4(model: nn.Module, *, training: bool) -> None:
    """Keep nf4 layers from repacking themselves on the CPU where that would break them.

    After one forward without gradients such a layer changes into a faster form whose backward
    is silently wrong; and the change fails on shapes that are no multiple of its blocks.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and hasattr(module, "support_avx512bf16_for_cpu"):
            misfit = module.out_features % _CPU_ROWS or module.in_features % _NF4_BLOCK
            if training or misfit:
                setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  unknown to nn


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the progress bars that transformers prints; ours go to the person who waits.

    bitsandbytes warns about an optional kernel package at every start; nothing follows from it.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


def _bitsandbytes_config(quantization: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization in ("nf4", "int8"):
        # It speaks of a kernel package when it is imported, and of a cast at every int8 call.
        for name in ("backends.cpu.ops", "autograd._functions"):
            logging.getLogger(f"bitsandbytes.{name}").setLevel(logging.ERROR)
    if quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if quantization == "int8" else None
