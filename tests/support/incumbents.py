"""A live version's reward model of random heads, and rankings to judge it by."""

from __future__ import annotations

import dataclasses

import torch
from planted import planted
from serving import random_lora

from chatrlhf.loop.incumbent import Incumbent
from chatrlhf.models.adapter_files import Component
from chatrlhf.models.reward_terms import FeatureScale, RewardTerms, Term


def rankings():
    """Twelve rankings, ids 1 to 12, of eight prompts: 9 to 12 repeat prompts 1 to 4."""
    return [
        dataclasses.replace(one, prompt_key=f"prompt {index % 8}", ranking_id=index + 1)
        for index, one in enumerate(planted(12, seed=1))
    ]


def incumbent(parts, newest, name="ranking"):
    base, bank = parts
    width = 3 * base.hidden_size
    generator = torch.Generator().manual_seed(1)
    heads = torch.randn(3, width, generator=generator)
    scale = FeatureScale(torch.zeros(width), torch.ones(width))
    terms = RewardTerms(scale, {name: Term.linear(1.0, heads)})
    return Incumbent(Component(random_lora(bank, 2), terms.state()), newest), heads
