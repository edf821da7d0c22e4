"""The other side of ``ppo_vs_trl.py`` and ``gpu.py``: TRL's PPOTrainer, in a process of its own.

Set up as TRL's documentation says: LoRA on the policy, the adapter switched off as reference
(``ref_model=None``), value and reward model as sequence classifiers with one output. All three have
the base's weights in bfloat16; the value model is trained in full, as PPOTrainer does. Gradient
checkpointing is off: PPOTrainer never turns it on, whatever its config says.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from measuring import Measurement, MemoryLog, Stopwatch, run_child
from peft import LoraConfig, get_peft_model
from ppo_workload import Workload, prompts_of
from process_memory import versions_of
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from chatrlhf.models.placement import choose_device

PACKAGES = ("trl", "torch", "transformers", "peft", "accelerate")


class Marks:
    """Tells the phases apart by the functions that PPOTrainer calls, and by its step callback.

    Scoring lasts from the end of generation to whitened advantages, the update from there to the
    end of the step.
    """

    def __init__(self, workload: Workload, device: torch.device) -> None:
        self.watch = Stopwatch(device)
        self.workload = workload
        self.iterations: list[dict[str, float]] = []
        self._last = 0.0

    def install(self) -> None:
        """Wrap the functions."""
        generation, whiten = ppo_trainer.batch_generation, ppo_trainer.masked_whiten

        def timed_generation(*args: Any, **kwargs: Any) -> Any:
            self.watch.start()
            with self.watch.phase("rollout"):
                replies, logits = generation(*args, **kwargs)
            if logits.shape[:2] != (self.workload.batch, self.workload.response_tokens):
                raise SystemExit(f"the replies have shape {tuple(logits.shape[:2])}")
            self._last = self.watch.now()
            return replies, logits

        def timed_whiten(*args: Any, **kwargs: Any) -> Any:
            whitened = whiten(*args, **kwargs)
            self._end("scoring")
            return whitened

        ppo_trainer.batch_generation = timed_generation
        ppo_trainer.masked_whiten = timed_whiten

    def step_ended(self) -> None:
        """The update is over, and with it the iteration."""
        self._end("update")
        self.iterations.append(self.watch.stop())

    def _end(self, name: str) -> None:
        now = self.watch.now()
        self.watch.seconds[name] = now - self._last
        self._last = now


class OnStep(TrainerCallback):
    """Tells the marks that a step has ended."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called by the trainer."""
        self.marks.step_ended()


def build(workload: Workload, marks: Marks, output: str, device: torch.device) -> PPOTrainer:
    tokenizer = AutoTokenizer.from_pretrained(workload.folder, padding_side="left")
    # Each goes to the device at once: the host never holds more than one of them.
    policy = AutoModelForCausalLM.from_pretrained(workload.folder, dtype=torch.bfloat16).to(device)
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(
            workload.folder, dtype=torch.bfloat16, num_labels=1
        ).to(device)
        for _ in range(2)
    )
    lora = LoraConfig(
        r=workload.lora_rank,
        lora_alpha=workload.lora_rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    config = PPOConfig(
        output_dir=output,
        per_device_train_batch_size=workload.micro_batch,
        gradient_accumulation_steps=workload.batch // workload.micro_batch,
        num_mini_batches=1,
        num_ppo_epochs=workload.epochs,
        total_episodes=workload.batch * (workload.warmup + workload.iterations),
        response_length=workload.response_tokens,
        stop_token=None,  # no token ends a reply
        temperature=1.0,
        learning_rate=workload.learning_rate,
        adam_epsilon=1e-5,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=True,
        use_cpu=device.type == "cpu",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=workload.seed,
    )
    prompts = prompts_of(workload, tokenizer.encode)
    return PPOTrainer(
        config,
        processing_class=tokenizer,
        model=get_peft_model(policy, lora),
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        callbacks=[OnStep(marks)],
    )


def measure(workload: Workload, options: dict[str, Any]) -> Measurement:  # noqa: ARG001
    torch.set_num_threads(workload.threads)
    torch.set_flush_denormal(True)
    device = choose_device(workload.device)
    measured, memory, marks = Measurement(), MemoryLog(), Marks(workload, device)
    marks.install()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        trainer = build(workload, marks, output, device)
        if trainer.accelerator.device.type != device.type:
            raise SystemExit(f"PPOTrainer computes on {trainer.accelerator.device}, not {device}")
        measured.load_seconds = time.perf_counter() - started
        memory.loaded(measured, device)
        trainer.train()
    memory.done(measured, device)
    measured.warmup = marks.iterations[: workload.warmup]
    measured.iterations = marks.iterations[workload.warmup :]
    measured.micro_batch = workload.micro_batch
    measured.trainable_parameters = {
        name: sum(p.numel() for p in model.parameters() if p.requires_grad)
        for name, model in (("policy", trainer.policy_model), ("value", trainer.value_model))
    }
    measured.versions = versions_of(PACKAGES)
    return measured


if __name__ == "__main__":
    run_child(measure)
