"""Parts of a batch on several cores at once.

torch spreads one operation over its threads, which wait for each other at its end, hundreds of
times a pass. Parts of a batch need not meet before the pass is over: one thread a part, each with
one thread of torch, took two thirds of the time (docs/decisions.md). What a part computes does not
depend on how many run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

from chatrlhf.engine.torch_threads import pool_of_single_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores(device: torch.device) -> int:
    """How many parts may run at once: torch's threads on a CPU, one on any other device."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], at_once: int
) -> list[Result]:
    """``[work(item) for item in items]``, up to ``at_once`` (``cores``) of them at a time.

    ``work`` runs with the gradient mode of the caller. An exception of any item is raised once
    none runs any more; that of the first item goes first.
    """
    if at_once == 1 or len(items) < 2:
        return [work(item) for item in items]
    with_gradients = torch.is_grad_enabled()
    inference = torch.is_inference_mode_enabled()
    flush = _denormals_are_flushed()

    def run(item: Item) -> Result:
        torch.set_flush_denormal(flush)  # a flag of each thread
        with torch.inference_mode(inference), torch.set_grad_enabled(with_gradients):
            return work(item)

    futures = [_pool(at_once).submit(run, item) for item in items]
    wait(futures)
    return [future.result() for future in futures]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return pool_of_single_threads(threads, "part")


def _denormals_are_flushed() -> bool:
    return float(torch.tensor(1e-39) * 1.0) == 0.0
