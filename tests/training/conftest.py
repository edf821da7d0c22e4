"""Tiny models whose adapters and heads are trained for a few steps."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from serving import random_lora
from tiny_model import write_tiny_model

from chatrlhf.models.base_model import BaseModel, load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.models.reward_model import RewardModel, ScalarHead, ValueModel
from chatrlhf.training import ppo

RANK = 4
END_TOKENS = frozenset(range(64))  # a fifth of the vocabulary, so that most replies end


@dataclass(frozen=True)
class Lab:
    """A base model and its bank, and how to put roles on them."""

    base: BaseModel
    bank: LoraBank

    def adapter(self, name, seed=None, trainable=True):
        """Add an adapter: one that changes nothing yet, or with random weights of a seed."""
        self.bank.add(name, trainable=trainable)
        if seed is not None:
            self.bank.load_state(name, random_lora(self.bank, seed))
        return name

    def policy(self, seed=None, name="policy"):
        """A policy, and the reference it starts from."""
        reference = self.adapter(f"{name}-start", seed, trainable=False)
        self.bank.copy(reference, self.adapter(name))
        return Policy(self.base, self.bank, name, reference)

    def head(self, seed=None):
        """A head that says zero, or one with random weights of a seed."""
        head = ScalarHead(self.base.hidden_size)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.1)
        return head

    def reward_model(self, seed=None, name="reward"):
        head = self.head(seed)
        return RewardModel(self.base, self.bank, self.adapter(name, seed), head)

    def critic(self, seed=None, name="value"):
        head = self.head(seed)
        return ValueModel(self.base, self.bank, self.adapter(name, seed), head)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("training") / "llama", hidden=32)


@pytest.fixture
def make_lab(folder):
    """Build fresh labs, equal to one another; fresh, because a bank changes the model."""

    def make(of=folder, quantization="fp32"):
        base = load_base_model(of, quantization=quantization, device="cpu", training=True)
        base.chat_format.end_token_ids = END_TOKENS
        return Lab(base, LoraBank(base.model, RANK, float(RANK)))

    return make


@pytest.fixture
def lab(make_lab):
    return make_lab()


@pytest.fixture
def one_core(monkeypatch):
    """PPO works on one part of a batch at a time, on any machine."""
    monkeypatch.setattr(ppo, "cores", lambda _: 1)


@pytest.fixture
def prompts():
    """Prompts of several lengths."""
    generator = torch.Generator().manual_seed(11)
    return [
        torch.randint(64, 310, (3 + row % 4,), generator=generator).tolist() for row in range(8)
    ]
