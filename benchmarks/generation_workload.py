"""What all sides of ``generation.py`` do, and how each takes its times. Without torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from fresh_process import answer
from process_memory import process_memory, versions_of

PACKAGES = ("chatrlhf", "torch", "transformers", "llama_cpp_python")


@dataclass(frozen=True)
class GenerationWorkload:
    """K replies of exactly ``tokens`` tokens to one prompt, for each K of ``replies``.

    Every request has a prompt of its own, all of one length, so that no cache of prompts answers:
    ``questions`` as a person writes them, ``prompts`` as the tokens that the chat makes of them.
    ``texts`` are rows of tokens of one length for the perplexity. No token ends a reply.
    """

    folder: str
    gguf: str | None
    questions: list[str]
    prompts: list[list[int]]
    texts: list[list[int]]
    replies: list[int] = field(default_factory=lambda: [1, 4, 8])
    tokens: int = 64
    repeats: int = 3
    warmup: int = 1
    temperature: float = 1.0
    top_p: float = 0.95
    threads: int = 2
    quantization: str = "auto"

    @property
    def requests(self) -> int:
        """How many requests a process is asked, warm-up included."""
        return prompts_needed(self.replies, self.warmup, self.repeats)


def prompts_needed(replies: Sequence[int], warmup: int, repeats: int) -> int:
    """One prompt for each request."""
    return len(replies) * (warmup + repeats)


@dataclass(frozen=True)
class Timing:
    """One request: seconds to the first token or text, seconds to the end of all replies."""

    first_seconds: float
    seconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Of all replies together, the prompt's time included."""
        return self.tokens / self.seconds


class Side(Protocol):
    """One way to get replies."""

    def ask(self, request: int, replies: int) -> Timing:
        """Get K replies to the prompt of this number."""

    def perplexity(self) -> float | None:
        """Of the workload's texts; None where this side is not asked for it."""

    def notes(self) -> dict[str, Any]:
        """What else there is to say of this side."""


def run_side(open_side: Callable[[GenerationWorkload, dict[str, Any]], Side]) -> None:
    """Body of a measuring process whose job is a workload with options."""
    answer(
        lambda job: measure(open_side, GenerationWorkload(**job["workload"]), job["options"]),
    )


def measure(
    open_side: Callable[[GenerationWorkload, dict[str, Any]], Side],
    workload: GenerationWorkload,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Times of all requests by ``k1``, ``k4``, ..., peak memory, and last the perplexity."""
    started = time.perf_counter()
    side = open_side(workload, options)
    found: dict[str, Any] = {
        "load_seconds": time.perf_counter() - started,
        "rss_after_loading": process_memory()["now"],
    }
    number = 0
    for replies in workload.replies:
        timings = []
        for repeat in range(workload.warmup + workload.repeats):
            timing = side.ask(number, replies)
            number += 1
            if timing.tokens != replies * workload.tokens:
                raise ValueError(
                    f"{timing.tokens} tokens came instead of {replies} x {workload.tokens}"
                )
            if repeat >= workload.warmup:
                timings.append(asdict(timing))
        found[f"k{replies}"] = timings
    found["peak_rss"] = process_memory()["peak"]
    found["perplexity"] = side.perplexity() if options.get("perplexity") else None
    found["versions"] = versions_of(PACKAGES)
    found["notes"] = side.notes()
    return found


def perplexity_of(log_likelihoods: Sequence[float]) -> float:
    """The exponential of the mean negative log-likelihood of tokens."""
    return math.exp(-math.fsum(log_likelihoods) / len(log_likelihoods))
