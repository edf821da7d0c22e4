"""Replies by the engine and by transformers' ``generate``, for ``gpu.py``; one a process."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from asking import ask
from measuring import Memory, MemoryLog, Stopwatch, run_child
from ppo_workload import Workload
from process_memory import versions_of
from written_adapters import fresh_state, perturbed, write_adapter

from chatrlhf.engine.engine import Engine
from chatrlhf.engine.requests import ChatMessage, ReplyRequest, Sampling
from chatrlhf.models.base_model import BaseModel, load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.placement import choose_device
from chatrlhf.settings import EngineSettings

QUESTION = "Write a long story about a river, a boat and the people who live on it."
REPLIES = (1, 4, 8)


@dataclass
class Generation(Memory):
    """What a process of generation measured, by ``k1``, ``k4``, ``k8``: replies to one prompt.

    Each maps ``first_seconds`` (to the first text, of the engine only) and ``tokens_per_second``
    to one value a repeat.
    """

    replies: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def measure(workload: Workload, options: dict[str, Any]) -> Generation:
    torch.set_num_threads(workload.threads)
    device = choose_device(workload.device)
    measured, memory = Generation(), MemoryLog()
    base = load_base_model(
        Path(workload.folder), quantization=workload.quantization, device=workload.device
    )
    memory.loaded(measured, device)
    for replies in REPLIES:
        measured.replies[f"k{replies}"] = {"first_seconds": [], "tokens_per_second": []}
    TASKS[options["task"]](base, workload, measured.replies)
    memory.done(measured, device)
    measured.versions = versions_of(("chatrlhf", "torch", "transformers", "bitsandbytes"))
    return measured


def measure_engine(
    base: BaseModel, workload: Workload, found: dict[str, dict[str, list[float]]]
) -> None:
    """Time to the first text and tokens a second of K replies to one prompt, with an adapter."""
    bank = LoraBank(base.model, workload.lora_rank, float(workload.lora_rank))
    engine = Engine(base, bank, EngineSettings())
    engine.start()
    with tempfile.TemporaryDirectory() as folder:
        state = perturbed(fresh_state(bank), seed=0, deviation=1e-3)
        engine.load_version("v0", write_adapter(base, bank, Path(folder), "v0", state))
    engine.set_live("v0")
    for replies in REPLIES:
        one = found[f"k{replies}"]
        for repeat in range(workload.warmup + workload.iterations):
            sampling = Sampling(max_new_tokens=workload.response_tokens)
            question = (ChatMessage("user", QUESTION),)
            timing = ask(engine, ReplyRequest(question, replies, repeat, sampling))
            if repeat >= workload.warmup:
                one["first_seconds"].append(timing.first_seconds)
                one["tokens_per_second"].append(timing.tokens_per_second)
    engine.stop()


@torch.inference_mode()
def measure_generate(
    base: BaseModel, workload: Workload, found: dict[str, dict[str, list[float]]]
) -> None:
    """The same by transformers' ``generate`` on the same layers and adapter."""
    bank = LoraBank(base.model, workload.lora_rank, float(workload.lora_rank))
    bank.add("v0", dtype=base.compute_dtype)
    watch = Stopwatch(base.device)
    prompt = base.chat_format.encode_prompt([ChatMessage("user", QUESTION)])
    ids = torch.tensor([prompt], device=base.device)
    for replies in REPLIES:
        for repeat in range(workload.warmup + workload.iterations):
            started = watch.now()
            with bank.using("v0"):
                output = base.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    **{"temperature": 0.9, "top_p": 0.95, "top_k": 0},
                    num_return_sequences=replies,
                    max_new_tokens=workload.response_tokens,
                    pad_token_id=base.chat_format.pad_token_id,
                )
            count = int(output[:, ids.shape[1] :].ne(base.chat_format.pad_token_id).sum())
            if repeat >= workload.warmup:
                found[f"k{replies}"]["tokens_per_second"].append(count / (watch.now() - started))


TASKS = {"engine": measure_engine, "generate": measure_generate}


if __name__ == "__main__":
    run_child(measure)
