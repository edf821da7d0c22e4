"""Models of real shapes with random weights: speed and memory do not depend on what they say."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from fresh_process import answer
from model_shapes import SHAPES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

_COMMON = {"max_position_embeddings": 32768, "initializer_range": 0.02, "rms_norm_eps": 1e-6}
_TEMPLATE = """{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""
_SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")


def write_random_model(folder: Path, shape: str) -> Path:
    """A model folder of this shape with random bfloat16 weights, unless it is there already."""
    if (folder / "complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    family, sizes = SHAPES[shape]
    tokens = _write_tokenizer(folder)
    config = AutoConfig.for_model(
        family,
        **_COMMON,
        **sizes,
        bos_token_id=None,
        eos_token_id=tokens["<|im_end|>"],
        pad_token_id=tokens["<|pad|>"],
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = tokens["<|im_end|>"]
    model.save_pretrained(folder)
    (folder / "complete").touch()
    return folder


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """Bytes and three control tokens: the rows of the vocabulary beyond them are never named."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={text: at for at, text in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{"pad_token": _SPECIAL[0], "eos_token": _SPECIAL[2]},
        "clean_up_tokenization_spaces": False,
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


if __name__ == "__main__":
    answer(lambda job: {"folder": str(write_random_model(Path(job["folder"]), job["shape"]))})
