"""Train the starter adapter: a chat model out of the embedded base model.

``python -m chatrlhf.training.starter`` (``make starter``) fits the demonstrations that ship with
the package, measures the held-out loss before and after, and writes ``chatrlhf/data/starter``.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.models.adapter_files import POLICY, AdapterShape, Component, write_folder
from chatrlhf.models.base_model import BaseModel, load_base_model
from chatrlhf.models.catalog import ensure_local, find_source
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.settings import ModelSettings, SftSettings
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.sft import SftStep, fit_demonstrations, mean_token_loss

HELD_OUT = 48
SEED = 20
SETTINGS = SftSettings(learning_rate=3e-4, epochs=3, batch_size=8, max_tokens=512)


@dataclass(frozen=True)
class Conversation:
    """A demonstration: messages whose last one is the assistant's."""

    messages: tuple[ChatMessage, ...]


def starter_folder() -> Path:
    """Where the shipped starter adapter lies."""
    return Path(str(files("chatrlhf") / "data" / "starter"))


def shipped_demonstrations() -> list[Conversation]:
    """The demonstrations that ship with the package, in a fixed order."""
    found: list[Conversation] = []
    for path in sorted((starter_folder().parent / "demonstrations").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            messages = json.loads(line)["messages"]
            found.append(
                Conversation(tuple(ChatMessage(m["role"], m["content"]) for m in messages))
            )
    return found


def split_held_out(
    conversations: list[Conversation],
) -> tuple[list[Conversation], list[Conversation]]:
    """(train, held out), by a fixed shuffle."""
    order = list(conversations)
    random.Random(SEED).shuffle(order)
    return order[HELD_OUT:], order[:HELD_OUT]


def train_starter(base: BaseModel, target: Path, model: ModelSettings, console: Console) -> None:
    """Train, measure and write the starter adapter, in bfloat16 to stay small."""
    format_ = base.chat_format
    train, held_out = (
        [_sequence(*format_.encode_conversation(one.messages)) for one in part]
        for part in split_held_out(shipped_demonstrations())
    )
    bank = LoraBank(base.model, model.lora_rank, model.lora_alpha)
    bank.add(POLICY, trainable=True, seed=SEED)
    policy = Policy(base, bank, POLICY)
    before = mean_token_loss(policy, held_out)
    with Progress(console=console) as bar:
        task = bar.add_task("SFT", total=None)

        def on_step(done: SftStep) -> None:
            text = f"SFT loss {done.loss:.3f}"
            bar.update(task, completed=done.step, total=done.steps, description=text)

        fit_demonstrations(policy, train, SETTINGS, SEED, on_step)
    after = mean_token_loss(policy, held_out)
    console.print(f"held-out loss {before:.4f} -> {after:.4f} nats per token")
    shutil.rmtree(target, ignore_errors=True)
    write_folder(
        target,
        {POLICY: Component(bank.state_of(POLICY))},
        AdapterShape(bank.rank, bank.alpha, bank.target_modules),
        {
            "name": "v0",
            "base": {"name": "embedded", "sha256": base.base_sha256},
            "stage": "sft",
            "demonstrations": {"train": len(train), "held_out": len(held_out)},
            "dataset_sha256": _dataset_hash(),
            "held_out_loss": {"before": round(before, 4), "after": round(after, 4)},
            "settings": {
                "learning_rate": SETTINGS.learning_rate,
                "epochs": SETTINGS.epochs,
                "batch_size": SETTINGS.batch_size,
                "seed": SEED,
            },
        },
        dtype=torch.bfloat16,
    )


def _sequence(token_ids: list[int], is_response: list[bool]) -> TokenSequence:
    sequence = TokenSequence(tuple(token_ids), tuple(is_response))
    return sequence.shortened(SETTINGS.max_tokens) or sequence


def _dataset_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted((starter_folder().parent / "demonstrations").glob("*.jsonl")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Train the starter adapter of the embedded model."""
    console = Console()
    torch.set_flush_denormal(True)
    settings = ModelSettings()
    folder = ensure_local(
        find_source("embedded"), lambda text, fraction: console.print(f"{text} {fraction:.0%}")
    )
    base = load_base_model(folder, quantization=settings.quantization, training=True)
    train_starter(base, starter_folder(), settings, console)
    size = sum(path.stat().st_size for path in starter_folder().rglob("*") if path.is_file())
    console.print(f"wrote {starter_folder()} ({size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
