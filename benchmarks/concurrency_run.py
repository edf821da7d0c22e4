"""The measuring process of ``concurrency.py``: an engine, and people who ask at once."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from fresh_process import answer
from generation_engine import EngineSide
from generation_workload import GenerationWorkload
from swap_streams import gaps, recorded

from chatrlhf.engine.requests import ChatMessage, ReplyRequest

_QUESTION = (
    "{number:03} is the number of my letter. Please write me a long story about a river and a boat."
)
_MORE = (
    " Begin in the early morning, when nobody is awake but the old ferryman, and tell what each of "
    "the people on it wants, what stands in the way, and how the evening ends for all of them."
)
_LONGEST = 5  # of which a prompt has 0 to one less


def question(number: int) -> str:
    """A prompt of its own for every request, of 25 to some 190 tokens."""
    return _QUESTION.format(number=number) + _MORE * (number % _LONGEST)


@dataclass(frozen=True)
class Asked:
    """One request: seconds to its first text, tokens, and the longest gap between its texts."""

    first_seconds: float
    longest_gap_seconds: float
    tokens: int


class Load:
    """Conversations that ask at the same time."""

    def __init__(self, workload: GenerationWorkload) -> None:
        self._side = EngineSide(workload)
        self._workload = workload

    def run(self, conversations: int, requests: int, replies: int, first: int) -> dict[str, Any]:
        """Every conversation asks ``requests`` times; prompts are numbered from ``first`` on."""
        timings: list[Asked] = []
        begin = threading.Barrier(conversations + 1)

        def chat(number: int) -> None:
            begin.wait()
            for asked in range(requests):
                timings.append(self._ask(first + asked * conversations + number, replies))

        threads = [threading.Thread(target=chat, args=(one,)) for one in range(conversations)]
        for thread in threads:
            thread.start()
        begin.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        if len(timings) < conversations * requests:
            raise SystemExit("a conversation failed")
        return {
            "conversations": conversations,
            "seconds": seconds,
            "tokens_per_second": sum(one.tokens for one in timings) / seconds,
            "timings": [asdict(one) for one in timings],
        }

    def _ask(self, number: int, replies: int) -> Asked:
        messages = (ChatMessage("user", question(number)),)
        began = time.perf_counter()
        kept = recorded(
            self._side.engine, ReplyRequest(messages, replies, number, self._side.sampling)
        )
        if kept.failure or kept.first is None:
            raise SystemExit(f"the engine failed: {kept.failure}")
        return Asked(
            kept.first - began,
            max((end - start for start, end in gaps(kept.texts)), default=0.0),
            sum(len(one.token_ids) for one in kept.finished.values()),
        )


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Body of a measuring process."""
    workload = GenerationWorkload(
        folder=job["folder"],
        gguf=None,
        questions=[],
        prompts=[],
        texts=[],
        tokens=job["tokens"],
        threads=job["threads"],
        quantization=job["quantization"],
    )
    load = Load(workload)
    load.run(1, 1, job["replies"], first=0)  # warms up what is made once
    return load.run(job["conversations"], job["requests"], job["replies"], first=1)


if __name__ == "__main__":
    answer(measure)
