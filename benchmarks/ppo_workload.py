"""What both sides of ``ppo_vs_trl.py`` and ``gpu.py`` do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

PHASES = ("rollout", "scoring", "update")
_PROMPTS = Path(__file__).resolve().parents[1] / "chatrlhf" / "data" / "prompts.jsonl"


@dataclass(frozen=True)
class Workload:
    """One PPO iteration: ``batch`` prompts, replies of exactly ``response_tokens`` tokens.

    An optimizer step takes the whole batch, ``micro_batch`` rows at a time. ``device`` is cpu, cuda
    or auto. From ``whole_critic`` on, fields are of our side: how it holds model and optimizer.
    """

    folder: str
    batch: int = 8
    micro_batch: int = 8
    prompt_tokens: int = 17
    response_tokens: int = 32
    epochs: int = 4
    lora_rank: int = 16
    learning_rate: float = 1e-5
    threads: int = 2
    warmup: int = 1
    iterations: int = 3
    seed: int = 0
    device: str = "cpu"
    whole_critic: bool = False
    quantization: str = "bf16"
    optimizer: str = "adam"
    gradient_checkpointing: bool = False

    @property
    def tokens_per_iteration(self) -> int:
        """Response tokens of one iteration."""
        return self.batch * self.response_tokens


def prompts_of(workload: Workload, encode: Callable[[str], list[int]]) -> list[list[int]]:
    """Prompts of the asked length: running text of the prompt pool, cut into equal pieces.

    A pool that is too short is read again from its start.
    """
    lines = _PROMPTS.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines if line.strip()]
    tokens: list[int] = []
    for text in cycle(texts):
        tokens += encode(text)
        if len(tokens) >= workload.batch * workload.prompt_tokens:
            break
    size = workload.prompt_tokens
    return [tokens[row * size : (row + 1) * size] for row in range(workload.batch)]
