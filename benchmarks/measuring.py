"""How a measuring process takes time and memory, on the CPU and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from fresh_process import answer
from ppo_workload import PHASES, Workload
from process_memory import forget_peak, process_memory


@dataclass
class Memory:
    """Bytes that a process held, by ``MemoryLog``; ``gpu_`` stays 0 where it computes on the CPU.

    ``allocated`` is what tensors took, ``reserved`` what torch held of the GPU for them. What
    other libraries take from the GPU themselves is in neither: CUDA's own context, and the large
    moments of ``adam8bit``, which live in memory that the GPU may page out.
    """

    device: str = ""
    rss_after_loading: int = 0
    peak_rss_after_loading: int = 0
    peak_rss: int = 0
    gpu_allocated_after_loading: int = 0
    gpu_peak_allocated: int = 0
    gpu_peak_reserved: int = 0


@dataclass
class Measurement(Memory):
    """What a process of PPO measured.

    Each iteration maps a phase, ``total`` and ``processor`` (seconds of all cores) to seconds.
    ``micro_batch`` is the number of rows that went through the model at once in the end.
    """

    load_seconds: float = 0.0
    warmup: list[dict[str, float]] = field(default_factory=list)
    iterations: list[dict[str, float]] = field(default_factory=list)
    trainable_parameters: dict[str, int] = field(default_factory=dict)
    micro_batch: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    profile: dict[str, str] = field(default_factory=dict)


class Stopwatch:
    """Seconds of each phase of the iteration that runs; it waits for what a GPU still computes."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self.device = device
        self._started = self._processor = 0.0

    def now(self) -> float:
        """Seconds on a clock, when all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        started = self.now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - started

    def start(self) -> None:
        """An iteration begins."""
        self.seconds = {}
        self._started, self._processor = self.now(), time.process_time()

    def stop(self) -> dict[str, float]:
        """It has ended: its phases, ``total`` and ``processor``."""
        if missing := set(PHASES) - self.seconds.keys():
            raise SystemExit(f"the phases {sorted(missing)} were not seen; the wrappers are stale")
        return {
            **self.seconds,
            "total": self.now() - self._started,
            "processor": time.process_time() - self._processor,
        }


class MemoryLog:
    """Peak memory of loading and of the work after it; a GPU's peaks are over both."""

    def __init__(self) -> None:
        self._while_loading = 0

    def loaded(self, measured: Memory, device: torch.device) -> None:
        """Everything is in memory; the work begins."""
        memory = process_memory()
        self._while_loading = memory["peak"]
        measured.rss_after_loading = memory["now"]
        measured.device = device.type
        if device.type == "cuda":
            measured.device = torch.cuda.get_device_name(device)
            measured.gpu_allocated_after_loading = torch.cuda.memory_allocated(device)
        forget_peak()

    def done(self, measured: Memory, device: torch.device) -> None:
        """The work is over."""
        measured.peak_rss_after_loading = process_memory()["peak"]
        measured.peak_rss = max(self._while_loading, measured.peak_rss_after_loading)
        if device.type == "cuda":
            measured.gpu_peak_allocated = torch.cuda.max_memory_allocated(device)
            measured.gpu_peak_reserved = torch.cuda.max_memory_reserved(device)


def run_child(work: Callable[[Workload, dict[str, Any]], Memory]) -> None:
    """Body of a measuring process whose job is a workload with options."""
    answer(lambda job: asdict(work(Workload(**job["workload"]), job["options"])))
