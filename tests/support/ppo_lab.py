"""PPO trainers on a tiny model, and independent readings of what they compute."""

from __future__ import annotations

import dataclasses

import torch
from tiny_model import never_sampled

from chatrlhf.settings import PpoSettings
from chatrlhf.training.ppo import PpoTrainer

SETTINGS = PpoSettings(
    learning_rate=1e-2,
    value_learning_rate=1e-2,
    iterations=8,
    minibatches=2,
    epochs=2,
    max_new_tokens=6,
    stop_kl=0.0,
)


def odd_share(rollout):
    """Share of odd tokens: a score without any model."""
    return torch.tensor([sum(t % 2 for t in one) / len(one) for one in rollout.responses])


def make_trainer(lab, scorer=odd_share, seed=0, micro_batch=100, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return PpoTrainer(
        lab.policy(seed=1), lab.critic(seed=2), scorer, settings, seed=seed, micro_batch=micro_batch
    )


def weights(trainer):
    """All tensors of a trainer, copied."""
    parts, _ = trainer.state()
    return {
        f"{part}/{key}": tensor.clone()
        for part, some in parts.items()
        for key, tensor in some.items()
    }


def equal(ours, theirs):
    """The same names and the same bits."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def gradients(trainer):
    return [p.grad for p in (*trainer.policy.parameters(), *trainer.critic.parameters())]


def log_distributions(lab, adapter, prompt, response):
    """Log-probabilities of all tokens where each response token is drawn, (T, V), by the model."""
    with lab.bank.using(adapter):
        ids = torch.tensor([[*prompt, *response]])
        logits = lab.base.model(input_ids=ids, use_cache=False).logits[0].clone()
    logits[:, never_sampled(lab.base)] = -1e30
    log_p = logits.log_softmax(-1)
    return log_p[len(prompt) - 1 : len(prompt) + len(response) - 1]


def logprobs_of(lab, adapter, prompt, response):
    """Log-probabilities of a response by the model's own logits, (T,)."""
    log_p = log_distributions(lab, adapter, prompt, response)
    return log_p[torch.arange(len(response)), torch.tensor(response)]


def values_of(lab, critic, prompt, response):
    """What the critic says where each response token is drawn, from the definition, (T,)."""
    with lab.bank.using(critic.adapter):
        ids = torch.tensor([[*prompt, *response]])
        layers = lab.base.decoder(input_ids=ids, output_hidden_states=True).hidden_states
    middle, hidden = layers[1][0], layers[-1][0]  # after the first of two layers, and at the end
    values = []
    for place in range(len(prompt) - 1, len(prompt) + len(response) - 1):
        spoken = slice(len(prompt), place + 1)
        mean = middle[spoken].sum(0) / max(place + 1 - len(prompt), 1)
        features = torch.cat([hidden[place], mean, 0.01 * hidden[spoken].sum(0)])
        values.append(critic.head.weight.to(features.dtype) @ features + critic.head.bias)
    return torch.stack(values)
