"""Parts of a batch at once: order, modes, failures, and the same results as one after another."""

from __future__ import annotations

import random
import threading

import pytest
import torch
from ppo_lab import equal, gradients, make_trainer, weights

from chatrlhf.training import ppo
from chatrlhf.training.experience import draw_minibatches
from chatrlhf.training.parallel import cores, in_parallel

CPU = torch.device("cpu")


def test_results_come_in_order_from_threads_of_one_core_each():
    threads = torch.get_num_threads()
    both = threading.Barrier(2, timeout=20)  # passed only if two run at the same time

    def work(item):
        both.wait()
        return item, threading.current_thread().name, torch.get_num_threads()

    found = in_parallel(work, [3, 1], 2)
    assert [item for item, _, _ in found] == [3, 1]
    assert len({name for _, name, _ in found}) == 2
    assert {count for _, _, count in found} == {1}
    assert torch.get_num_threads() == threads


def test_one_item_or_one_core_stays_in_the_thread_of_the_caller():
    here = threading.get_ident()
    for items, at_once in (([1], 4), ([1, 2], 1)):
        assert set(in_parallel(lambda _: threading.get_ident(), items, at_once)) == {here}


def test_a_gpu_runs_one_part_at_a_time():
    assert cores(torch.device("cuda")) == 1
    assert cores(CPU) == torch.get_num_threads()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("flush", [True, False])
def test_modes_of_the_caller_apply(mode, flush):
    def work(_):
        tiny = torch.tensor(1e-39) * 1.0
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), bool(tiny == 0)

    try:
        torch.set_flush_denormal(flush)
        with mode():
            expected = work(None)
            assert expected[2] is flush
            assert in_parallel(work, [0, 1], 2) == [expected, expected]
    finally:
        torch.set_flush_denormal(False)


def test_an_exception_is_raised_when_nothing_runs_any_more():
    ended = []

    def work(item):
        if item == 0:
            raise ValueError("first")
        ended.append(item)

    with pytest.raises(ValueError, match="first"):
        in_parallel(work, [0, 1, 2], 2)
    assert sorted(ended) == [1, 2]


@pytest.mark.parametrize("minibatches", [1, 2])
def test_several_cores_learn_what_one_learns(make_lab, prompts, monkeypatch, minibatches):
    found = []
    for at_once in (1, 2, 3):
        monkeypatch.setattr(ppo, "cores", lambda _, at_once=at_once: at_once)
        trainer = make_trainer(make_lab(), minibatches=minibatches, entropy_coefficient=0.01)
        stats, rollout, _ = trainer.iteration(prompts)
        found.append((stats, rollout.responses, gradients(trainer)))
    for stats, responses, grads in found[1:]:
        assert responses == found[0][1]
        assert stats.loss == pytest.approx(found[0][0].loss, abs=1e-4)
        for one, other in zip(grads, found[0][2], strict=True):
            assert torch.allclose(one, other, rtol=2e-3, atol=1e-5)


def test_several_cores_give_the_same_bits_again(make_lab, prompts, monkeypatch):
    monkeypatch.setattr(ppo, "cores", lambda _: 3)
    found = []
    for _ in range(3):
        trainer = make_trainer(make_lab(), micro_batch=1)  # several waves
        for _ in range(2):
            trainer.iteration(prompts)
        found.append(weights(trainer))
    assert equal(found[0], found[1])
    assert equal(found[0], found[2])


def test_a_minibatch_is_cut_into_parts_of_like_work():
    lengths = [10] * 8 + [80]
    (minibatch,) = draw_minibatches(lengths, 1, 16, random.Random(0), at_once=2)
    assert sorted(map(len, minibatch)) == [1, 8]  # 80 padded tokens each
    (whole,) = draw_minibatches(lengths, 1, 16, random.Random(0))
    assert len(whole) == 1
    small = draw_minibatches([5] * 7, 2, 2, random.Random(0), at_once=2)
    assert sorted(len(part) for one in small for part in one) == [1, 2, 2, 2]
    rows = sorted(row for one in small for part in one for row in part)
    assert rows == list(range(7))
