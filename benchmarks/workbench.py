"""The model, its adapters and its prompts: what the parts of ``learning.py`` work on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.loop.datasets import Tokens, pool_prompts
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.base_model import BaseModel, load_base_model
from chatrlhf.models.catalog import ensure_local, find_source
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.settings import ModelSettings, PpoSettings
from chatrlhf.training.rollout import Rollout, collect_rollout
from chatrlhf.training.starter import starter_folder
from storage.prompts import split_of

START, POLICY, REWARD, VALUE = "start", "policy", "reward", "value"
ROWS_AT_ONCE = 48


@dataclass(frozen=True)
class Workbench:
    """One base model, its adapters, and prompts that are trained on or held out."""

    base: BaseModel
    bank: LoraBank
    train: tuple[Tokens, ...]
    held_out: tuple[Tokens, ...]
    micro_batch: int = 16

    def policy(self, adapter: str, reference: str | None = None) -> Policy:
        """The base under one of the adapters."""
        return Policy(self.base, self.bank, adapter, reference)

    def sample(
        self, adapter: str, prompts: Sequence[Tokens], settings: PpoSettings, seed: int
    ) -> Rollout:
        """One reply to each prompt, ``ROWS_AT_ONCE`` rows at a time."""
        parts = [
            collect_rollout(
                self.policy(adapter),
                prompts[at : at + ROWS_AT_ONCE],
                seed=seed * 1_000 + at,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
            )
            for at in range(0, len(prompts), ROWS_AT_ONCE)
        ]
        return Rollout(
            *(
                tuple(itertools.chain.from_iterable(getattr(part, one.name) for part in parts))
                for one in dataclasses.fields(Rollout)
            )
        )

    def texts(self, rollout: Rollout) -> list[str]:
        """What a person would read: replies without their end-of-turn token."""
        return [
            self.base.chat_format.decode(response[:-1] if finished else response)
            for response, finished in zip(rollout.responses, rollout.finished, strict=True)
        ]


def load_workbench(model: ModelSettings) -> Workbench:
    """The base with the starter adapter, or with one that changes nothing for another base."""
    folder = ensure_local(find_source(model.name), lambda _text, _fraction: None)
    base = load_base_model(
        folder, quantization=model.quantization, device=model.device, training=True
    )
    return build_workbench(base, model)


def build_workbench(base: BaseModel, model: ModelSettings) -> Workbench:
    """Adapters and prompts beside a loaded base."""
    bank = LoraBank(base.model, model.lora_rank, model.lora_alpha)
    for name in (START, POLICY, REWARD, VALUE):
        bank.add(name, trainable=name != START)
    if (starter_folder() / "manifest.json").exists():
        starter = read_version(starter_folder())
        if starter.manifest["base"]["sha256"] == base.base_sha256:
            bank.load_state(START, starter.policy.lora)
    split: dict[str, list[Tokens]] = {"train": [], "held_out": []}
    for text, _, _ in pool_prompts():
        split[split_of(text)].append(
            tuple(base.chat_format.encode_prompt([ChatMessage("user", text)]))
        )
    return Workbench(base, bank, tuple(split["train"]), tuple(split["held_out"]))
