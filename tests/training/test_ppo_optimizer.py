"""The optimizer of PPO, and what of it goes into a checkpoint."""

from __future__ import annotations

import pytest
import torch

from chatrlhf.errors import SettingsError
from chatrlhf.training.ppo_optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 2), ())]


def stepped(optimizer, ours, times):
    for step in range(times):
        for one in ours:
            one.grad = torch.full_like(one, 0.1 * (step + 1)) * one.detach().sign()
        optimizer.step()


def adam(ours):
    return make_optimizer("adam", [(ours[:1], 1e-2), (ours[1:], 3e-2)], torch.device("cpu"))


def test_one_step_of_adam_is_the_rate_times_the_sign_of_the_gradient():
    ours = parameters()
    before = [one.detach().clone() for one in ours]
    stepped(adam(ours), ours, 1)
    for one, old, rate in zip(ours, before, (1e-2, 3e-2), strict=True):
        # m / (sqrt(v) + eps) of the first step is g / (|g| + eps), with g = 0.1 and eps = 1e-5.
        expected = old - rate * old.sign() * 0.1 / (0.1 + 1e-5)
        assert torch.allclose(one.detach(), expected, atol=1e-6)


def test_saved_moments_go_on_to_the_same_bits():
    straight = parameters()
    stepped(adam(straight), straight, 3)
    ours = parameters()
    first = adam(ours)
    stepped(first, ours, 2)
    saved = optimizer_tensors(first)
    copies = {name: tensor.clone() for name, tensor in saved.items()}
    second = adam(ours)
    load_optimizer_tensors(second, saved)
    for one in ours:
        one.grad = torch.full_like(one, 0.1 * 3) * one.detach().sign()
    second.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, straight, strict=True))
    assert all(torch.equal(saved[name], copies[name]) for name in copies)


class Nested(torch.optim.SGD):
    """Keeps its state as bitsandbytes does: a plain step number and nested tensors."""

    def step(self):
        for group in self.param_groups:
            for one in group["params"]:
                slot = self.state[one]
                slot["step"] = slot.get("step", 0) + 1
                slot["wrapped"] = {"state1": torch.arange(3, dtype=torch.uint8)}


def test_nested_states_and_plain_numbers_survive():
    ours = parameters()
    optimizer = Nested(ours, lr=0.1)
    optimizer.step()
    saved = optimizer_tensors(optimizer)
    assert set(saved) == {"0.step", "0.wrapped.state1", "1.step", "1.wrapped.state1"}
    again = Nested(ours, lr=0.1)
    load_optimizer_tensors(again, saved)
    slot = again.state_dict()["state"][0]
    assert slot["step"] == 1
    assert isinstance(slot["step"], int)
    assert slot["wrapped"]["state1"].tolist() == [0, 1, 2]


def test_8_bit_moments_need_a_gpu_and_say_so():
    with pytest.raises(SettingsError, match=r"adam8bit needs a CUDA device.*on cpu.*= adam"):
        make_optimizer("adam8bit", [(parameters(), 1e-2)], torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_8_bit_moments_survive_a_checkpoint_on_a_gpu():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(128, 64, generator=generator)  # large enough to be kept in 8 bits

    def made():
        one = torch.nn.Parameter(values.cuda())
        return one, make_optimizer("adam8bit", [([one], 1e-2)], torch.device("cuda"))

    def step(one, optimizer, number):
        one.grad = torch.sin(values.cuda() * number)
        optimizer.step()

    one, optimizer = made()
    step(one, optimizer, 1)
    saved = {name: tensor.cpu() for name, tensor in optimizer_tensors(optimizer).items()}
    middle = one.detach().clone()
    step(one, optimizer, 2)
    other, resumed = made()
    with torch.no_grad():
        other.copy_(middle)
    load_optimizer_tensors(resumed, saved)
    step(other, resumed, 2)
    assert torch.equal(one, other)
