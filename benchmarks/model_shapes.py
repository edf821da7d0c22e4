"""Shapes of models: those of the published configurations of Qwen2.5 0.5B and 1.5B, Llama 3.1 8B.

``tiny`` is for trying the benchmarks without a GPU.
"""

from __future__ import annotations

from typing import Any

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        "qwen2",
        {
            **{"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128},
            **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
            "tie_word_embeddings": True,
        },
    ),
    "0.5b": (
        "qwen2",
        {
            **{"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864},
            **{"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2},
            "tie_word_embeddings": True,
        },
    ),
    "1.5b": (
        "qwen2",
        {
            **{"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960},
            **{"num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2},
            "tie_word_embeddings": True,
        },
    ),
    "8b": (
        "llama",
        {
            **{"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336},
            **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
            "tie_word_embeddings": False,
        },
    ),
}
