"""What both sides of ``ppo_vs_trl.py`` do, and how their time and memory are measured."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PHASES = ("rollout", "scoring", "update")
_PROMPTS = Path(__file__).resolve().parents[1] / "chatrlhf" / "data" / "prompts.jsonl"


@dataclass(frozen=True)
class Workload:
    """One PPO iteration: ``batch`` prompts, replies of exactly ``response_tokens`` tokens.

    An optimizer step takes the whole batch, ``micro_batch`` rows at a time.
    """

    folder: str
    batch: int = 8
    micro_batch: int = 8
    prompt_tokens: int = 17
    response_tokens: int = 32
    epochs: int = 4
    lora_rank: int = 16
    learning_rate: float = 1e-5
    threads: int = 2
    warmup: int = 1
    iterations: int = 3
    seed: int = 0
    whole_critic: bool = False

    @property
    def tokens_per_iteration(self) -> int:
        """Response tokens of one iteration."""
        return self.batch * self.response_tokens


@dataclass
class Measurement:
    """What a process measured.

    Each iteration maps a phase, ``total`` and ``processor`` (seconds of all cores) to seconds.
    """

    load_seconds: float = 0.0
    warmup: list[dict[str, float]] = field(default_factory=list)
    iterations: list[dict[str, float]] = field(default_factory=list)
    trainable_parameters: dict[str, int] = field(default_factory=dict)
    rss_after_loading: int = 0
    peak_rss_after_loading: int = 0
    peak_rss: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    profile: dict[str, str] = field(default_factory=dict)


def prompts_of(workload: Workload, encode: Callable[[str], list[int]]) -> list[list[int]]:
    """Prompts of the asked length: running text of the prompt pool, cut into equal pieces."""
    lines = _PROMPTS.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines if line.strip()]
    tokens: list[int] = []
    for text in texts:
        tokens += encode(text)
        if len(tokens) >= workload.batch * workload.prompt_tokens:
            break
    size = workload.prompt_tokens
    return [tokens[row * size : (row + 1) * size] for row in range(workload.batch)]


class Stopwatch:
    """Seconds of each phase of the iteration that runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = self._processor = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def start(self) -> None:
        """An iteration begins."""
        self.seconds = {}
        self._started, self._processor = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, float]:
        """It has ended: its phases, ``total`` and ``processor``."""
        if missing := set(PHASES) - self.seconds.keys():
            raise SystemExit(f"the phases {sorted(missing)} were not seen; the wrappers are stale")
        return {
            **self.seconds,
            "total": time.perf_counter() - self._started,
            "processor": time.process_time() - self._processor,
        }


def process_memory() -> dict[str, int]:
    """Resident memory of this process in bytes: now, and at most since ``forget_peak``.

    On Linux from /proc, as ``ru_maxrss`` starts with the peak of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        sizes = {"now": lines["VmRSS"], "peak": lines["VmHWM"]}
        return {name: int(size.split()[0]) * 1024 for name, size in sizes.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return {"now": peak, "peak": peak}


def forget_peak() -> None:
    """Let the peak begin again at what is resident now; where the system cannot, do nothing."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


class MemoryLog:
    """Peak memory of loading and of the work after it."""

    def __init__(self) -> None:
        self._while_loading = 0

    def loaded(self, measured: Measurement) -> None:
        """Everything is in memory; the work begins."""
        memory = process_memory()
        self._while_loading = memory["peak"]
        measured.rss_after_loading = memory["now"]
        forget_peak()

    def done(self, measured: Measurement) -> None:
        """The work is over."""
        measured.peak_rss_after_loading = process_memory()["peak"]
        measured.peak_rss = max(self._while_loading, measured.peak_rss_after_loading)


def run_child(work: Callable[[Workload, dict[str, Any]], Measurement]) -> None:
    """Body of a measuring process: argv is the job file and the file for the result."""
    job, result = Path(sys.argv[1]), Path(sys.argv[2])
    spec = json.loads(job.read_text())
    measured = work(Workload(**spec["workload"]), spec["options"])
    result.write_text(json.dumps(asdict(measured)))
