"""TRL's RewardTrainer in a fresh process: ``python trl_reward.py TASK.json ANSWER.json``.

Trains on the token ids of the task, so that tokenization cannot differ, and answers with the
scores of the held-out replies, chosen and rejected in turn.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from trl import RewardConfig, RewardTrainer

ROWS_AT_ONCE = 8


def train(task: dict[str, Any], folder: str) -> RewardTrainer:
    """Train as TRL's documentation says, with the shape and the amount of the task."""
    on_cpu = not torch.cuda.is_available()
    trainer = RewardTrainer(
        model=task["model"],
        args=RewardConfig(
            output_dir=folder,
            num_train_epochs=task["epochs"],
            per_device_train_batch_size=task["batch_size"],
            learning_rate=task["learning_rate"],
            weight_decay=task["weight_decay"],
            max_length=task["max_tokens"],
            model_init_kwargs={"dtype": task["dtype"]},
            bf16=task["dtype"] == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=on_cpu,
            dataloader_pin_memory=not on_cpu,
            seed=task["seed"],
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=Dataset.from_list(
            [{"chosen_ids": one, "rejected_ids": other} for one, other in task["train"]]
        ),
        peft_config=LoraConfig(
            task_type="SEQ_CLS",
            r=task["rank"],
            lora_alpha=task["alpha"],
            lora_dropout=0.0,
            bias="none",
            target_modules=task["target_modules"],
            modules_to_save=["score"],
        ),
    )
    trainer.train()
    return trainer


@torch.no_grad()
def score(trainer: RewardTrainer, sequences: list[list[int]]) -> list[float]:
    """Scores of whole conversations."""
    model = trainer.model.eval()
    device = next(model.parameters()).device
    pad = model.config.pad_token_id
    found: list[float] = []
    for at in range(0, len(sequences), ROWS_AT_ONCE):
        rows = sequences[at : at + ROWS_AT_ONCE]
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with trainer.autocast_smart_context_manager():
            logits = model(input_ids=ids.to(device), attention_mask=real.to(device)).logits
        found += logits[:, 0].float().tolist()
    return found


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trainer = train(task, folder)
        seconds = time.perf_counter() - started
    scores = score(trainer, [ids for pair in task["held_out"] for ids in pair])
    Path(sys.argv[2]).write_text(
        json.dumps({"scores": scores, "trl_version": trl.__version__, "fit_seconds": seconds})
    )


if __name__ == "__main__":
    main()
