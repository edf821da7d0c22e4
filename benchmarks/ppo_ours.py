"""One side of ``ppo_vs_trl.py`` and ``gpu.py``: our PPO iterations, in a process of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measuring import Measurement, MemoryLog, Stopwatch, run_child
from ppo_workload import Workload, prompts_of
from process_memory import versions_of

from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.placement import choose_device
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import RewardModel, ScalarHead, ValueModel
from chatrlhf.settings import PpoSettings
from chatrlhf.training import ppo
from chatrlhf.training.reward import score_sequences

PACKAGES = ("chatrlhf", "torch", "transformers", "bitsandbytes")
PROFILE_ROWS = 18


class Phases:
    """Times the phases of an iteration; profiles them too when told."""

    def __init__(self, device: torch.device) -> None:
        self.watch = Stopwatch(device)
        self.profiling = False
        self.tables: dict[str, str] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time, and perhaps profile, what runs inside."""
        if not self.profiling:
            with self.watch.phase(name):
                yield
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profiler, self.watch.phase(name):
            yield
        averages = profiler.key_averages()
        self.tables[name] = averages.table(sort_by="self_cpu_time_total", row_limit=PROFILE_ROWS)


class TimedTrainer(ppo.PpoTrainer):
    """The trainer, with its phases timed."""

    phases: Phases

    def _collect(self, *args: Any) -> Any:
        with self.phases("scoring"):
            return super()._collect(*args)

    def _update(self, *args: Any) -> Any:
        with self.phases("update"):
            return super()._update(*args)


def build(workload: Workload, phases: Phases) -> tuple[TimedTrainer, list[list[int]]]:
    base = load_base_model(
        Path(workload.folder),
        quantization=workload.quantization,
        device=workload.device,
        training=True,
    )
    base.chat_format.end_token_ids = frozenset()  # no token ends a reply
    bank = LoraBank(base.model, workload.lora_rank, float(workload.lora_rank))
    for name in ("start", "policy", "reward", "value"):
        bank.add(name, trainable=name in ("policy", "value"))
    reward_model = RewardModel(base, bank, "reward", random_head(base.hidden_size, workload.seed))
    settings = PpoSettings(
        learning_rate=workload.learning_rate,
        value_learning_rate=workload.learning_rate,
        iterations=workload.warmup + workload.iterations + 1,
        minibatches=1,
        epochs=workload.epochs,
        max_new_tokens=workload.response_tokens,
        stop_kl=0.0,  # TRL makes all updates
        optimizer=workload.optimizer,
        gradient_checkpointing=workload.gradient_checkpointing,
    )

    def score(rollout: Any) -> Any:
        return score_sequences(reward_model, rollout.sequences, workload.micro_batch)

    trainer = TimedTrainer(
        Policy(base, bank, "policy", "start"),
        ValueModel(
            *(base, bank, "value", random_head(base.hidden_size, workload.seed)),
            whole=workload.whole_critic,
        ),
        score,
        settings,
        seed=workload.seed,
        micro_batch=workload.micro_batch,
    )
    trainer.phases = phases
    prompts = prompts_of(workload, lambda text: base.tokenizer.encode(text))
    return trainer, prompts


def random_head(size: int, seed: int) -> ScalarHead:
    head = ScalarHead(size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.01)
    return head


def measure(workload: Workload, options: dict[str, Any]) -> Measurement:
    torch.set_num_threads(workload.threads)
    torch.set_flush_denormal(True)
    device = choose_device(workload.device)
    measured, memory, phases = Measurement(), MemoryLog(), Phases(device)
    collect_rollout = ppo.collect_rollout

    def timed_rollout(*args: Any, **kwargs: Any) -> Any:
        with phases("rollout"):
            return collect_rollout(*args, **kwargs)

    ppo.collect_rollout = timed_rollout
    started = time.perf_counter()
    trainer, prompts = build(workload, phases)
    steps = count_steps(trainer.optimizer)
    measured.load_seconds = time.perf_counter() - started
    memory.loaded(measured, device)

    def iterate() -> dict[str, float]:
        phases.watch.start()
        stats, rollout, _ = trainer.iteration(prompts)
        seconds = phases.watch.stop()
        measured.micro_batch = round(stats.micro_batch)
        if {len(reply) for reply in rollout.responses} != {workload.response_tokens}:
            raise SystemExit("a reply has another length than asked for")
        if steps.pop() != workload.epochs:
            raise SystemExit("an iteration took another number of optimizer steps than asked for")
        return seconds

    measured.warmup = [iterate() for _ in range(workload.warmup)]
    measured.iterations = [iterate() for _ in range(workload.iterations)]
    memory.done(measured, device)
    if options.get("profile"):
        phases.profiling = True
        iterate()
        measured.profile = phases.tables
    measured.trainable_parameters = {
        "policy": sum(p.numel() for p in trainer.policy.parameters()),
        "value": sum(p.numel() for p in trainer.critic.parameters()),
    }
    measured.versions = versions_of(PACKAGES)
    return measured


class StepCount:
    """Optimizer steps since the last ``pop``."""

    def __init__(self) -> None:
        self.steps = 0

    def pop(self) -> int:
        """The number so far; counting begins again."""
        steps, self.steps = self.steps, 0
        return steps

    def __call__(self, *_: Any) -> None:
        """Count one step."""
        self.steps += 1


def count_steps(optimizer: torch.optim.Optimizer) -> StepCount:
    count = StepCount()
    optimizer.register_step_post_hook(count)
    return count


if __name__ == "__main__":
    run_child(measure)
