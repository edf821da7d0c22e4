"""TRL's PPOTrainer on a tiny model, the tensors that pass through it, and our models beside it.

TRL has its formulas inside long methods. Its functions are therefore wrapped here, and each wrapper
keeps the local variables of the method that called it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from serving import random_lora
from tiny_model import write_tiny_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import ScalarHead, ValueModel
from chatrlhf.training.rollout import Rollout

RANK = 4
RATE = 1e-2
VALUE_SEED, REWARD_SEED = 3, 4
# The pad token must never be drawn, as TRL takes every one for padding; replies should often end.
PAD_BIAS, END_BIAS = -30.0, 3.5


@dataclass
class Update:
    """One backward pass: the local variables, and the gradients that it left."""

    tensors: dict[str, Tensor]
    gradients: dict[str, Tensor]


@dataclass
class PpoRun:
    """What one iteration of TRL's PPOTrainer computed."""

    locals: dict[str, Tensor] = field(default_factory=dict)
    whitenings: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    log_softmaxes: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    log: dict[str, float] = field(default_factory=dict)


@dataclass
class Ours:
    """Our policy and critic, with the weights that TRL's models begin with."""

    bank: LoraBank
    policy: Policy
    critic: ValueModel


@dataclass
class Pair:
    """A run of TRL's, the weights that it led to, and our models as TRL's were before it."""

    run: PpoRun
    ours: Ours
    policy: dict[str, Tensor]
    value: dict[str, Tensor]
    score: Tensor

    @property
    def rollout(self) -> Rollout:
        queries, responses = self.run.locals["queries"], self.run.locals["responses"]
        pad = self.ours.policy.base.chat_format.pad_token_id
        return Rollout(
            prompts=tuple(tuple(row[row != pad].tolist()) for row in queries),
            responses=tuple(tuple(row.tolist()) for row in responses),
            logprobs=tuple(tuple(row.tolist()) for row in self.run.locals["logprobs"]),
            finished=(True,) * len(queries),
        )


def our_models(folder: Path) -> Ours:
    base = load_base_model(folder, quantization="fp32", device="cpu", training=True)
    bias_logits(base.model)
    base.__dict__["suppressed"] = ()  # TRL samples control tokens like any other
    bank = LoraBank(base.model, RANK, float(RANK))
    for name, seed in (("policy", 1), ("value", 2)):
        bank.add(name, trainable=True)
        bank.load_state(name, random_lora(bank, seed, scale=0.1))
    size = base.hidden_size
    head = ScalarHead(size)
    # TRL's head reads the last hidden state alone, without a bias.
    head.feature_scale[size:] = 0.0
    head.bias.requires_grad_(False)
    with torch.no_grad():
        head.weight[:size] = random_score(size, VALUE_SEED)[0]
    critic = ValueModel(base, bank, "value", head, whole=True)
    return Ours(bank, Policy(base, bank, "policy"), critic)


def run_pair(folder: Path, prompts: list[list[int]], output: Path, **changes: Any) -> Pair:
    """Run one iteration of TRL's with ``PPOConfig`` fields ``changes``; LoRA for both roles."""
    ours = our_models(folder)
    causal = causal_model(folder)
    bias_logits(causal)
    policy = get_peft_model(causal, lora_config())
    value = scoring_model(folder, VALUE_SEED)
    config = lora_config()
    config.task_type = "SEQ_CLS"  # leaves the score out of "all-linear"
    inject_adapter_in_model(config, value)
    policy_lora = lora_parameters(policy, ours.bank.state_of("policy"))
    value_lora = lora_parameters(value, ours.bank.state_of("value"))
    score = value.score.weight.requires_grad_(True)  # peft has frozen it
    trained = [*policy_lora.values(), *value_lora.values(), score]
    torch.manual_seed(7)
    run = run_ppo(
        ppo_config(output, prompts, **changes),
        left_padding_tokenizer(folder),
        prompts,
        optimizer=torch.optim.Adam(trained, lr=RATE, eps=1e-5),
        model=policy,
        ref_model=None,
        reward_model=scoring_model(folder, REWARD_SEED),
        value_model=value,
    )
    return Pair(run, ours, policy_lora, value_lora, score)


def lora_config() -> LoraConfig:
    return LoraConfig(r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules="all-linear")


def write_twin_model(folder: Path) -> Path:
    return write_tiny_model(folder, "gemma3", hidden=32, initializer_range=0.2)


def end_token(folder: Path) -> int:
    token: int = json.loads((folder / "config.json").read_text())["eos_token_id"]
    return token


def bias_logits(model: Any) -> None:
    """Give the LM head a bias, so that the end token is often drawn and the pad token never."""
    head = model.get_output_embeddings()
    bias = torch.zeros(head.out_features)
    bias[model.config.pad_token_id] = PAD_BIAS
    bias[model.config.eos_token_id] = END_BIAS
    head.bias = nn.Parameter(bias, requires_grad=False)


def lora_parameters(model: nn.Module, state: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    """The adapter weights of a model that has peft's layers, set to ``state``, under its names."""
    found = {}
    prefix = "base_model.model."
    has_prefix = any(name.startswith(prefix) for name, _ in model.named_parameters())
    for key, tensor in state.items():
        name = key.replace(".weight", ".default.weight")
        found[key] = model.get_parameter(name if has_prefix else name.removeprefix(prefix))
        with torch.no_grad():
            found[key].copy_(tensor)
    return found


def causal_model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def scoring_model(folder: Path, seed: int) -> PreTrainedModel:
    """A sequence classifier with one output and a random head."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, num_labels=1
    )
    with torch.no_grad():
        model.score.weight.copy_(random_score(model.config.hidden_size, seed))
    return model


def random_score(size: int, seed: int) -> Tensor:
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * 0.1


def left_padding_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder, padding_side="left")


def run_ppo(
    config: PPOConfig,
    tokenizer: Any,
    prompts: list[list[int]],
    *,
    optimizer: torch.optim.Optimizer,
    **models: PreTrainedModel,
) -> PpoRun:
    """One iteration of TRL's PPOTrainer over all prompts as one batch."""
    run = PpoRun()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = PPOTrainer(
        config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        optimizers=(optimizer, scheduler),
        **models,
    )
    _keep_gradients(trainer, run)
    trainer.log = run.log.update
    with pytest.MonkeyPatch.context() as monkeypatch:
        _keep_locals(monkeypatch, run)
        trainer.train()
    return run


def ppo_config(folder: Path, prompts: list[list[int]], **changes: Any) -> PPOConfig:
    usual: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(prompts),
        "gradient_accumulation_steps": 1,
        "total_episodes": len(prompts),
        "num_sample_generations": 0,
        "response_length": 10,
        "kl_coef": 0.3,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return PPOConfig(**{**usual, **changes})


def _tensors(variables: dict[str, Any]) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in variables.items() if isinstance(v, Tensor)}


def _keep_locals(monkeypatch: pytest.MonkeyPatch, run: PpoRun) -> None:
    whiten, log_softmax = ppo_trainer.masked_whiten, ppo_trainer.selective_log_softmax

    def keeping_whiten(values, mask, shift_mean=True):
        whitened = whiten(values, mask, shift_mean)
        run.locals = _tensors(sys._getframe(1).f_locals)
        run.whitenings.append((values.clone(), mask.clone(), whitened.clone()))
        return whitened

    def keeping_log_softmax(logits, index):
        logprobs = log_softmax(logits, index)
        run.log_softmaxes.append((logits.detach().clone(), index, logprobs.detach().clone()))
        return logprobs

    monkeypatch.setattr(ppo_trainer, "masked_whiten", keeping_whiten)
    monkeypatch.setattr(ppo_trainer, "selective_log_softmax", keeping_log_softmax)


def _keep_gradients(trainer: PPOTrainer, run: PpoRun) -> None:
    backward = trainer.accelerator.backward

    def keeping_backward(loss):
        variables = sys._getframe(1).f_locals
        wanted = {name: variables[name] for name in ("new_logprobs", "vpred")}
        for tensor in wanted.values():
            tensor.retain_grad()
        kept = _tensors(variables)
        kept["rows"] = torch.from_numpy(variables["micro_batch_inds"])
        backward(loss)
        run.updates.append(Update(kept, {name: t.grad.clone() for name, t in wanted.items()}))

    trainer.accelerator.backward = keeping_backward
