"""How much memory keys and values may take, and what a request takes of it at most.

bytes of a token and row = 2 (key, value) * layers * key heads * head size * bytes of a number
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from chatrlhf.engine.kv_cache import SPARE
from chatrlhf.errors import ContextOverflowError
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.memory import readable_bytes

# The rest is for logits, activations, and others on this machine.
_SHARE_OF_FREE = 0.5
_LEAST = 64 << 20


@dataclass(frozen=True)
class CacheBudget:
    """``total`` bytes for the keys and values of running replies, ``per_token`` a token and row."""

    total: int
    per_token: int

    def needed(self, prompt_tokens: int, new_tokens: int, rows: int, versions: int) -> int:
        """Bytes that a request may take at most.

        Args:
            prompt_tokens: of its prompt.
            new_tokens: that a reply may have.
            rows: replies, together.
            versions: that answer; each runs the prompt.
        """
        if not rows:
            return 0
        prompts = versions * (prompt_tokens + SPARE)
        joined = versions * prompt_tokens if versions > 1 else 0
        while_shared = prompts + joined + rows * prompt_tokens
        at_the_end = rows * (prompt_tokens + new_tokens + SPARE)
        return self.per_token * max(while_shared, at_the_end)

    def check(self, prompt_tokens: int, new_tokens: int, rows: int, versions: int) -> int:
        """The same, of a request that can be served.

        Raises:
            ContextOverflowError: it can never fit.
        """
        needed = self.needed(prompt_tokens, new_tokens, rows, versions)
        if needed > self.total:
            raise ContextOverflowError(
                f"{rows} replies of up to {new_tokens} tokens to {prompt_tokens} tokens need "
                f"{readable_bytes(needed)} of memory, and the server has "
                f"{readable_bytes(self.total)} for replies. Ask for fewer or shorter "
                "replies, or shorten the message."
            )
        return needed


def cache_budget(base: BaseModel, megabytes: int, prefix_tokens: int) -> CacheBudget:
    """The budget of a loaded model; ``megabytes`` 0 is half of the memory that is free now.

    ``prefix_tokens`` is what the prefix cache may keep; it comes on top, and out of what is free.
    """
    per_token = bytes_per_token(base)
    if megabytes:
        return CacheBudget(megabytes * 10**6, per_token)
    if base.device.type == "cuda":
        free = torch.cuda.mem_get_info(base.device)[0]
    else:
        free = psutil.virtual_memory().available
    share = int((free - prefix_tokens * per_token) * _SHARE_OF_FREE)
    return CacheBudget(max(share, _LEAST), per_token)


def bytes_per_token(base: BaseModel) -> int:
    """Bytes of keys and values of one token in one row."""
    config = base.model.config.get_text_config()
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * key_heads * head_dim * base.compute_dtype.itemsize)
