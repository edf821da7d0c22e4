"""Threads that give their operations one thread of torch each, whatever others use.

torch keeps two numbers: what was last set anywhere, and what each thread took over from that at
its first operation.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import torch


def pool_of_single_threads(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads run already; other threads keep the number that torch has now."""
    before = torch.get_num_threads()
    all_started = threading.Barrier(threads)

    def start() -> None:
        torch.set_num_threads(1)
        # A thread's first operation takes over what was last set anywhere; this is its first.
        torch.get_num_threads()
        all_started.wait()

    pool = ThreadPoolExecutor(threads, name, initializer=start)
    wait([pool.submit(torch.get_num_threads) for _ in range(threads)])
    torch.set_num_threads(before)
    return pool
