"""Random-weight models of a few ten thousand parameters, in the families that people use.

Each has a byte-level tokenizer with the family's control tokens and a chat template that
behaves as the family's does: Gemma puts the system prompt into the first user turn, Qwen drops
the reasoning of earlier turns, Mistral writes a space before a reply and refuses a wrong order.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from chatrlhf.models.weights import quiet_transformers

FAMILIES = ("llama", "qwen3", "gemma3", "mistral", "phi3", "smollm")

_TEXT = """the cat sat on the mat and the dog ran to the house where people talk and think about
a good reply to a question that you would ask in the morning when there is time for an answer"""

_CHATML = """{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

_QWEN = """{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- set answer = m.content.split('</think>')[-1].lstrip('\\n') -%}
{{- '<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n\\n' if loop.last else '') -}}
{{- answer + '<|im_end|>\\n' -}}
{%- else -%}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}{%- endif -%}"""

_LLAMA = """{{- bos_token -}}{%- for m in messages -%}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' -}}
{%- if m.role == 'system' -%}{{- 'Today Date: ' + date_string + '\\n\\n' -}}{%- endif -%}
{{- m.content | trim + '<|eot_id|>' -}}{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"""

_GEMMA = """{{- bos_token -}}
{%- if messages[0].role == 'system' -%}
{%- set lead = messages[0].content + '\\n\\n' -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set lead = '' -%}{%- set turns = messages -%}{%- endif -%}
{%- for m in turns -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Conversation roles must alternate') -}}{%- endif -%}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' -}}
{{- (lead if loop.first else '') + m.content | trim + '<end_of_turn>\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""

_MISTRAL = """{{- bos_token -}}{%- for m in messages -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Conversation roles must alternate user/assistant/...') -}}{%- endif -%}
{%- if m.role == 'user' -%}{{- '[INST] ' + m.content + '[/INST]' -}}
{%- else -%}{{- ' ' + m.content | trim + eos_token -}}{%- endif -%}{%- endfor -%}"""

_PHI = """{%- for m in messages -%}
{{- '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}
{%- else -%}{{- eos_token -}}{%- endif -%}"""

# family: (special tokens, other added tokens, bos, eos, pad, template)
_TOKENS: dict[str, tuple[list[str], list[str], str | None, str, str | None, str]] = {
    "llama": (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
         "<|end_header_id|>", "<|eot_id|>"],
        [], "<|begin_of_text|>", "<|eot_id|>", None, _LLAMA,
    ),
    "qwen3": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ["<think>", "</think>"], None, "<|im_end|>", "<|endoftext|>", _QWEN,
    ),
    "gemma3": (
        ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        ["\n\n"], "<bos>", "<eos>", "<pad>", _GEMMA,
    ),
    "mistral": (["<s>", "</s>", "[INST]", "[/INST]"], [], "<s>", "</s>", None, _MISTRAL),
    "phi3": (
        ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        [], "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", _PHI,
    ),
    "smollm": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        [], "<|im_start|>", "<|im_end|>", "<|im_end|>", _CHATML,
    ),
}  # fmt: skip

_MODEL_TYPES = {
    "llama": "llama",
    "qwen3": "qwen3",
    "gemma3": "gemma3_text",
    "mistral": "mistral",
    "phi3": "phi3",
    "smollm": "smollm3",
}


def write_tiny_model(
    folder: Path,
    family: str = "llama",
    *,
    hidden: int = 64,
    layers: int = 2,
    vocab: int = 320,
    seed: int = 0,
    chat_template: bool = True,
    **overrides: Any,
) -> Path:
    """Write a random-weight model that ``load_base_model`` loads; the same seed, the same bytes.

    ``vocab`` is at least 256 bytes plus the family's control tokens; ``overrides`` are fields of
    the config. Takes less than a second.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = write_tiny_tokenizer(folder, family, vocab=vocab, chat_template=chat_template)
    config = tiny_config(family, hidden=hidden, layers=layers, vocab=len(tokens), **overrides)
    special, _, bos, eos, pad, _ = _TOKENS[family]
    config.bos_token_id = tokens.get(bos or "")
    config.eos_token_id = tokens[eos]
    config.pad_token_id = tokens.get(pad or "")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = [tokens[eos], tokens[special[0]]]
    with quiet_transformers():
        model.save_pretrained(folder)
    return folder


def tiny_config(
    family: str, *, hidden: int = 64, layers: int = 2, vocab: int = 320, **overrides: Any
) -> Any:
    """The transformers config of a tiny model: 4 heads, 2 key-value heads."""
    sizes: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": family in ("gemma3", "qwen3", "smollm"),
        "initializer_range": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    if family in ("qwen3", "gemma3", "mistral"):
        sizes["head_dim"] = hidden // 4
    if family == "gemma3":
        sizes |= {"sliding_window": 32, "query_pre_attn_scalar": hidden // 4}
        sizes["layer_types"] = ["sliding_attention"] * (layers - 1) + ["full_attention"]
    if family in ("mistral", "phi3"):
        sizes["sliding_window"] = None
    return AutoConfig.for_model(_MODEL_TYPES[family], **{**sizes, **overrides})


def write_tiny_tokenizer(
    folder: Path, family: str, *, vocab: int = 320, chat_template: bool = True
) -> dict[str, int]:
    """Write tokenizer.json and tokenizer_config.json; the vocabulary."""
    special, added, bos, eos, pad, template = _TOKENS[family]
    tokenizer = Tokenizer.from_str(_trained_bytes(vocab - len(special) - len(added)))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    config |= {"clean_up_tokenization_spaces": False, "model_max_length": 512}
    if chat_template:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def never_sampled(base: Any) -> list[int]:
    """Ids of the family's control tokens that end no turn, of a loaded tiny model."""
    added = base.tokenizer.added_tokens_decoder
    ends = {base.chat_format.end_token_id, base.tokenizer.eos_token_id}
    ends.update(base.model.generation_config.eos_token_id or [])
    return [token for token, text in added.items() if text.special and token not in ends]


@cache
def _trained_bytes(size: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    text: str = tokenizer.to_str()
    return text
