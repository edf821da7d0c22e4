"""Where a model goes and in which form: device, data type, quantization."""

from __future__ import annotations

import psutil
import torch

from chatrlhf.errors import ModelError
from chatrlhf.models.memory import QUANTIZATIONS, WeightCount, readable_bytes


def choose_device(device: str) -> torch.device:
    """The device of this name; ``auto`` is a CUDA GPU where there is one, else the CPU.

    Raises:
        ModelError: the name is unknown or the device is not there.
    """
    name = device
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"Device {device!r} is unknown. Use auto, cpu, cuda or cuda:1.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"Device {device!r} was asked for, but torch sees {torch.cuda.device_count()} GPUs. "
            "Use auto or cpu."
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("Device 'mps' was asked for, but this is no Apple GPU. Use auto or cpu.")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"Device {device!r} is not supported. Use auto, cpu, cuda or mps.")
    return chosen


def choose_quantization(quantization: str, device: torch.device) -> str:
    """The form of the weights; ``auto`` is nf4 on CUDA, elsewhere bf16 if fast, else fp32.

    Raises:
        ModelError: the name is unknown or does not run on the device.
    """
    if quantization == "auto":
        if device.type == "cuda":
            return "nf4"
        return "bf16" if has_fast_bf16(device) else "fp32"
    if quantization not in QUANTIZATIONS:
        known = ", ".join(("auto", *QUANTIZATIONS))
        raise ModelError(f"Quantization {quantization!r} is unknown. Use one of {known}.")
    if quantization in ("nf4", "int8") and device.type == "mps":
        raise ModelError(f"{quantization} does not run on {device.type}. Use bf16 or fp32.")
    return quantization


def choose_dtype(quantization: str, device: torch.device) -> torch.dtype:
    """What activations are computed in: bfloat16 where it is wanted or fast, else float32."""
    if quantization == "bf16" or (quantization != "fp32" and has_fast_bf16(device)):
        return torch.bfloat16
    return torch.float32


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def check_memory(weights: WeightCount, quantization: str, device: torch.device) -> None:
    """Refuse weights that cannot fit, before the system runs out of memory.

    Raises:
        ModelError: says how much is needed and how much is free.
    """
    needed = weights.memory_bytes(quantization)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    if needed > free:
        raise ModelError(
            f"The weights need about {readable_bytes(needed)} in {quantization}, and {device} has "
            f"{readable_bytes(free)} free. Choose a smaller model or quantization = nf4."
        )
