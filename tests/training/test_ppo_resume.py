"""A resumed trainer goes on to the same bits."""

from __future__ import annotations

import pytest
import torch
from ppo_lab import equal, make_trainer, weights

from chatrlhf.errors import VersionError
from chatrlhf.training.ppo import PPO_PARTS

VARIANTS = {
    "usual": {"micro_batch": 3},
    "adaptive KL": {"micro_batch": 3, "kl_target": 0.01, "kl_horizon": 16, "kl_coefficient": 0.2},
    "KL as a loss": {"kl_estimator": "k3", "kl_target": 0.01, "kl_horizon": 16},
    "stopping early": {"epochs": 4, "stop_kl": 3e-3, "micro_batch": 2},
    "one minibatch": {"minibatches": 1, "entropy_coefficient": 0.01},
    "checkpointed": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_resuming_is_exact_bit_for_bit(make_lab, prompts, variant):
    prompts = prompts[:6]

    def made():
        return make_trainer(make_lab(), **variant)

    def after(trainer, iterations):
        for _ in range(iterations):
            stats, rollout, _ = trainer.iteration(prompts)
        return weights(trainer), trainer.kl_coefficient, stats, rollout

    straight = after(made(), 4)

    first = made()
    after(first, 2)
    parts, values = first.state()
    after(first, 2)  # going on must not change what was saved
    for _ in range(2):  # nor must resuming from it
        second = made()
        second.restore(parts, values)
        assert second.step == 2
        if "kl_horizon" in variant:
            assert second.kl_coefficient != made().kl_coefficient  # in the middle of adapting
        resumed = after(second, 2)
        assert equal(resumed[0], straight[0])
        assert resumed[1:] == straight[1:]


def test_the_state_has_the_parts_that_a_checkpoint_stores(lab, prompts):
    trainer = make_trainer(lab)
    trainer.iteration(prompts)
    parts, values = trainer.state()
    assert set(parts) == set(PPO_PARTS)
    assert values["step"] == 1
    count = len(trainer.policy.parameters()) + len(trainer.critic.parameters())
    assert len(parts["optimizer"]) == 3 * count  # step and two moments each
    assert all(isinstance(tensor, torch.Tensor) for tensor in parts["optimizer"].values())


def test_a_micro_batch_that_memory_halved_stays_halved_after_a_resume(make_lab, prompts):
    trainer = make_trainer(make_lab(), micro_batch=8)
    parts, values = trainer.state()
    values = {**values, "micro_batch": 2}
    for given, used in [(8, 2), (1, 1)]:  # a crash since may have halved it further
        resumed = make_trainer(make_lab(), micro_batch=given)
        resumed.restore(parts, values)
        assert resumed.iteration(prompts)[0].micro_batch == used


def test_a_state_of_another_model_is_refused(make_lab, prompts):
    parts, values = make_trainer(make_lab()).state()
    parts["value"] = {key: tensor[:1] for key, tensor in parts["value"].items()}
    with pytest.raises(VersionError, match="has shape"):
        make_trainer(make_lab()).restore(parts, values)
