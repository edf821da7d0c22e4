"""A real engine on a tiny model, versions with random weights, and how to ask it."""

from __future__ import annotations

import torch

from chatrlhf.engine.engine import Engine
from chatrlhf.engine.requests import (
    ChatMessage,
    Completed,
    Failed,
    Finished,
    ReplyRequest,
    Sampling,
)
from chatrlhf.models.adapter_files import AdapterShape, Component, write_version
from chatrlhf.models.reward_model import ScalarHead
from chatrlhf.models.reward_terms import FeatureScale, RewardTerms, Term
from chatrlhf.settings import EngineSettings

RANK = 4


def random_lora(bank, seed, scale=0.3):
    """Weights that change the model's replies."""
    if "shape" not in bank.names:
        bank.add("shape")
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(tensor.shape, generator=generator) * scale
        for key, tensor in bank.state_of("shape").items()
    }


def write_random_version(base, bank, parent, name, seed):
    """A version on disk; its folder."""
    fields = {"base": {"name": "tiny", "sha256": base.base_sha256}}
    shape = AdapterShape(RANK, float(RANK), bank.target_modules)
    write_version(parent, name, {"policy": Component(random_lora(bank, seed))}, shape, fields)
    return parent / name


def reward_terms(base, *, classifier=False):
    """A reward of random linear heads: rankings by an ensemble of three, and a label."""
    width = ScalarHead(base.hidden_size).weight.numel()
    generator = torch.Generator().manual_seed(1)
    terms = {
        "ranking": Term.linear(1.5, torch.randn(3, width, generator=generator)),
        "label:toxic": Term.linear(-0.5, torch.randn(1, width, generator=generator)),
    }
    if classifier:
        terms["classifier"] = Term.external(1.0)
    return RewardTerms(FeatureScale(torch.zeros(width), torch.ones(width)), terms, 0.1)


def write_with_reward(serving, name, terms):
    """A version on disk that has a reward model too; its folder."""
    base, bank = serving.base, serving.bank
    write_version(
        serving.folder,
        name,
        {
            "policy": Component(random_lora(bank, 1)),
            "reward": Component(random_lora(bank, 2), terms.state()),
        },
        AdapterShape(RANK, float(RANK), bank.target_modules),
        {"base": {"name": "tiny", "sha256": base.base_sha256}},
    )
    return serving.folder / name


class Serving:
    """A running engine with ``v0`` live, and what tests do with it."""

    def __init__(self, base, bank, folder, **settings):
        self.base, self.bank, self.folder = base, bank, folder
        self.engine = Engine(base, bank, EngineSettings(**settings), context_tokens=None)
        self.engine.start()
        self.load("v0")
        self.engine.set_live("v0")

    def write(self, name):
        if not (self.folder / name).exists():
            write_random_version(self.base, self.bank, self.folder, name, seed=int(name[1:]) + 1)
        return self.folder / name

    def load(self, name):
        self.engine.load_version(name, self.write(name))

    def submit(self, text="tell me about the cat", replies=1, seed=7, versions=(), **sampling):
        messages = text if isinstance(text, tuple) else (ChatMessage("user", text),)
        settings = {"max_new_tokens": 24, "temperature": 1.0, "top_p": 1.0, **sampling}
        return self.engine.submit(
            ReplyRequest(messages, replies, seed, Sampling(**settings), versions)
        )

    def ask(self, *args, **kwargs):
        """The finished replies of a request, by row."""
        return replies_of(self.submit(*args, **kwargs))


def replies_of(stream):
    """Wait for the end of a stream; its finished replies, in the order of the rows."""
    events = []
    while not events or not isinstance(events[-1], Completed | Failed):
        event = stream.next_event(30.0)
        assert event is not None, f"nothing came after {events}"
        events.append(event)
    assert isinstance(events[-1], Completed), events[-1]
    finished = [event for event in events if isinstance(event, Finished)]
    return sorted(finished, key=lambda event: event.row)
