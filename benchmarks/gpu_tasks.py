"""What ``gpu.py`` measures, each in a process of its own: one PPO iteration, and generation."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from chatrlhf.engine.engine import Engine
from chatrlhf.engine.requests import (
    ChatMessage,
    Completed,
    Delta,
    Failed,
    Finished,
    ReplyRequest,
    Sampling,
)
from chatrlhf.models.adapter_files import AdapterShape, Component, write_folder
from chatrlhf.models.base_model import BaseModel, load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import RewardModel, ScalarHead, ValueModel
from chatrlhf.settings import EngineSettings, PpoSettings
from chatrlhf.training.ppo import PpoTrainer
from chatrlhf.training.reward import score_sequences

PROMPT_TOKENS = 64
QUESTION = "Write a long story about a river, a boat and the people who live on it."
RANK = 16


def synchronise(base: BaseModel) -> None:
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)


def peak_bytes(base: BaseModel) -> int:
    """Most memory ever allocated on the GPU; without one, the resident set of the process."""
    if base.device.type == "cuda":
        return torch.cuda.max_memory_allocated(base.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_ppo(base: BaseModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of PPO iterations after one to warm up: policy, critic and reward model on a base."""
    bank = LoraBank(base.model, RANK, float(RANK))
    for name in ("start", "policy", "reward", "value"):
        bank.add(name, trainable=name in ("policy", "value"))
    settings = PpoSettings(
        iterations=arguments.repeats + 1,
        batch_size=arguments.batch,
        max_new_tokens=arguments.tokens,
    )
    reward = RewardModel(base, bank, "reward", ScalarHead(base.hidden_size))
    trainer = PpoTrainer(
        Policy(base, bank, "policy", "start"),
        ValueModel(base, bank, "value", ScalarHead(base.hidden_size)),
        lambda rollout: score_sequences(reward, rollout.sequences, arguments.micro_batch),
        settings,
        seed=0,
        micro_batch=arguments.micro_batch,
    )
    generator = torch.Generator().manual_seed(0)
    seconds, tokens = [], []
    for _ in range(arguments.repeats + 1):
        drawn = torch.randint(0, 256, (arguments.batch, PROMPT_TOKENS), generator=generator)
        synchronise(base)
        started = time.perf_counter()
        _, rollout, _ = trainer.iteration(drawn.tolist())
        synchronise(base)
        seconds.append(time.perf_counter() - started)
        tokens.append(sum(len(response) for response in rollout.responses))
    return {
        "seconds": seconds[1:],
        "response_tokens_per_second": statistics.median(
            count / taken for count, taken in zip(tokens[1:], seconds[1:], strict=True)
        ),
    }


def measure_engine(base: BaseModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time to the first text and tokens a second of K replies to one prompt, with an adapter."""
    bank = LoraBank(base.model, RANK, float(RANK))
    engine = Engine(base, bank, EngineSettings())
    engine.start()
    with tempfile.TemporaryDirectory() as folder:
        engine.load_version("v0", write_adapter(base, bank, Path(folder)))
    engine.set_live("v0")
    found = {}
    for replies in (1, 4, 8):
        runs = [
            ask(engine, replies, arguments.tokens, seed) for seed in range(arguments.repeats + 1)
        ]
        found[f"k{replies}"] = {
            "first_seconds": statistics.median(run["first"] for run in runs[1:]),
            "tokens_per_second": [run["speed"] for run in runs[1:]],
        }
    engine.stop()
    return found


def write_adapter(base: BaseModel, bank: LoraBank, folder: Path) -> Path:
    bank.add("written")
    state = bank.state_of("written")
    bank.remove("written")
    for name, tensor in state.items():
        if "lora_B" in name:
            tensor.normal_(0.0, 1e-3)
    shape = AdapterShape(bank.rank, bank.alpha, bank.target_modules)
    fields = {"name": "v0", "base": {"name": "random", "sha256": base.base_sha256}}
    write_folder(folder / "v0", {"policy": Component(state)}, shape, fields)
    return folder / "v0"


def ask(engine: Engine, replies: int, tokens: int, seed: int) -> dict[str, float]:
    sampling = Sampling(max_new_tokens=tokens)
    request = ReplyRequest((ChatMessage("user", QUESTION),), replies, seed, sampling)
    started = time.perf_counter()
    stream = engine.submit(request)
    first, count = None, 0
    while True:
        event = stream.next_event(600)
        if isinstance(event, Failed):
            raise SystemExit(f"the engine failed: {event.message}")
        if first is None and isinstance(event, Delta | Finished):
            first = time.perf_counter()
        if isinstance(event, Finished):
            count += len(event.token_ids)
        if isinstance(event, Completed):
            break
    assert first is not None
    return {"first": first - started, "speed": count / (time.perf_counter() - started)}


@torch.inference_mode()
def measure_generate(base: BaseModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same by transformers' ``generate`` on the same layers and adapter."""
    bank = LoraBank(base.model, RANK, float(RANK))
    bank.add("v0", dtype=base.compute_dtype)
    prompt = base.chat_format.encode_prompt([ChatMessage("user", QUESTION)])
    ids = torch.tensor([prompt], device=base.device)
    found = {}
    for replies in (1, 4, 8):
        speeds = []
        for _ in range(arguments.repeats + 1):
            synchronise(base)
            started = time.perf_counter()
            with bank.using("v0"):
                output = base.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    **{"temperature": 0.9, "top_p": 0.95, "top_k": 0},
                    num_return_sequences=replies,
                    max_new_tokens=arguments.tokens,
                    pad_token_id=base.chat_format.pad_token_id,
                )
            synchronise(base)
            count = output[:, ids.shape[1] :].ne(base.chat_format.pad_token_id).sum()
            speeds.append(int(count) / (time.perf_counter() - started))
        found[f"k{replies}"] = {"first_seconds": None, "tokens_per_second": speeds[1:]}
    return found


TASKS = {"ppo": measure_ppo, "engine": measure_engine, "generate": measure_generate}


def main() -> None:
    parser = argparse.ArgumentParser(description="One measurement of gpu.py.")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("model", type=Path)
    parser.add_argument("--quantization", default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    base = load_base_model(
        arguments.model, quantization=arguments.quantization, training=arguments.task == "ppo"
    )
    result = TASKS[arguments.task](base, arguments)
    device = base.device.type
    result["device"] = torch.cuda.get_device_name(base.device) if device == "cuda" else device
    result["quantization"] = base.quantization
    result["peak_bytes"] = peak_bytes(base)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
