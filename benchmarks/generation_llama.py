"""llama.cpp's side of ``generation.py``: K sequences in one batch, through its C interface.

The prompt is decoded once, as sequence 0; the others get a copy of its cache. Then each step is
one ``llama_decode`` of K tokens, one a sequence, and one sampler chain a sequence. Python adds a
handful of foreign calls to a step.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from generation_workload import GenerationWorkload, Side, Timing, perplexity_of, run_side

_BATCH_TOKENS = 512
_CELLS = 256  # a sequence's part of the cache is a multiple of it
_TO_THE_END = -1


class LlamaError(Exception):
    """llama.cpp refused something."""


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _quiet(_level: int, _text: bytes, _data: Any) -> None:
    """llama.cpp prints a page while it loads."""


class LlamaSide:
    """A GGUF model and a context for the most replies of the workload.

    With ``drawn``, tokens come from llama.cpp's samplers: top-k where ``top_k`` is not 0, top-p,
    temperature, distribution. Without, the tokens are given, as in llama.cpp's own
    ``llama-batched-bench``. ``repacked`` lets it lay weights out for the processor, as it does by
    default.
    """

    def __init__(
        self, workload: GenerationWorkload, *, drawn: bool, top_k: int = 0, repacked: bool = True
    ) -> None:
        self.replies: list[list[int]] = []
        self._workload = workload
        self._drawn = drawn
        self._top_k = top_k
        self._decode_calls = self._batches = 0
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.use_extra_bufts = repacked
        assert workload.gguf is not None
        self._model = llama_cpp.llama_model_load_from_file(workload.gguf.encode(), parameters)
        if not self._model:
            raise LlamaError(f"llama.cpp cannot load {workload.gguf}")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self._model)
        )
        rows = max(workload.replies)
        self._context = self._open_context(len(workload.prompts[0]) + workload.tokens, rows)
        self._batch = llama_cpp.llama_batch_init(_BATCH_TOKENS, 0, 1)

    def ask(self, request: int, replies: int) -> Timing:
        """Get K replies to the prompt of this number."""
        chains = [self._sampler(request * 1000 + row) for row in range(replies)]
        given = np.random.default_rng(request).integers(
            self._vocabulary, size=(self._workload.tokens, replies)
        )
        self._decode_calls = 0
        started = time.perf_counter()
        self._clear()
        prompt = self._workload.prompts[request]
        self._decode(prompt, range(len(prompt)), [0] * len(prompt), outputs=1)
        memory = llama_cpp.llama_get_memory(self._context)
        for row in range(1, replies):
            llama_cpp.llama_memory_seq_cp(memory, 0, row, _TO_THE_END, _TO_THE_END)
        places = [len(prompt) - 1] * replies  # of the logits of each row, in the batch
        first, steps = 0.0, []
        for step in range(self._workload.tokens):
            drawn = self._draw(chains, places, given[step].tolist())
            steps.append(drawn)
            first = first or time.perf_counter() - started
            if step + 1 < self._workload.tokens:
                positions = [len(prompt) + step] * replies
                self._decode(drawn, positions, range(replies), outputs=replies)
                places = list(range(replies))
        timing = Timing(first, time.perf_counter() - started, sum(map(len, steps)))
        self.replies = [list(reply) for reply in zip(*steps, strict=True)]
        self._batches = self._decode_calls
        for chain in chains:
            llama_cpp.llama_sampler_free(chain)
        return timing

    def perplexity(self) -> float | None:
        """By one batch a row of tokens."""
        likelihoods: list[float] = []
        for row in self._workload.texts:
            self._clear()
            self._decode(row, range(len(row)), [0] * len(row), outputs=len(row))
            for position, target in enumerate(row[1:]):
                found = llama_cpp.llama_get_logits_ith(self._context, position)
                logits = np.ctypeslib.as_array(found, (self._vocabulary,)).astype(np.float64)
                most = logits.max()
                likelihoods.append(logits[target] - most - np.log(np.exp(logits - most).sum()))
        return perplexity_of(likelihoods)

    def notes(self) -> dict[str, Any]:
        """How it was built, and how many batches the last request took: one a step."""
        return {
            "system": llama_cpp.llama_print_system_info().decode(),
            "batches_of_last_request": self._batches,
            "drawn": self._drawn,
            "top_k": self._top_k,
        }

    def _open_context(self, tokens: int, rows: int) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        # Each sequence has a part of its own, which measures 4% faster than one that all share.
        parameters.kv_unified = False
        parameters.n_ctx = rows * -(-max(tokens, len(self._workload.texts[0])) // _CELLS) * _CELLS
        parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
        parameters.n_seq_max = rows
        parameters.n_threads = parameters.n_threads_batch = self._workload.threads
        context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not context:
            raise LlamaError(f"llama.cpp gave no context of {rows} times {tokens} tokens")
        return context

    def _sampler(self, seed: int) -> Any:
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        parts = [
            llama_cpp.llama_sampler_init_top_p(self._workload.top_p, 1),
            llama_cpp.llama_sampler_init_temp(self._workload.temperature),
            llama_cpp.llama_sampler_init_dist(seed),
        ]
        if self._top_k:
            parts.insert(0, llama_cpp.llama_sampler_init_top_k(self._top_k))
        for part in parts:
            llama_cpp.llama_sampler_chain_add(chain, part)
        return chain

    def _draw(self, chains: list[Any], places: list[int], given: list[int]) -> list[int]:
        llama_cpp.llama_synchronize(self._context)
        if not self._drawn:
            return given
        pairs = zip(chains, places, strict=True)
        return [llama_cpp.llama_sampler_sample(chain, self._context, at) for chain, at in pairs]

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)  # noqa: FBT003

    def _decode(
        self, tokens: Sequence[int], positions: Sequence[int], rows: Sequence[int], outputs: int
    ) -> None:
        """One batch; the last ``outputs`` tokens get logits."""
        count = len(tokens)
        if count > _BATCH_TOKENS:
            raise LlamaError(f"{count} tokens are more than a batch of {_BATCH_TOKENS} holds")
        batch = self._batch
        batch.n_tokens = count
        for place, (token, position, row) in enumerate(zip(tokens, positions, rows, strict=True)):
            batch.token[place] = token
            batch.pos[place] = position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = row
            batch.logits[place] = place >= count - outputs
        self._decode_calls += 1
        if status := llama_cpp.llama_decode(self._context, batch):
            raise LlamaError(f"llama_decode of {count} tokens failed with {status}")


def open_side(workload: GenerationWorkload, options: dict[str, Any]) -> Side:
    return LlamaSide(
        workload,
        drawn=options["drawn"],
        top_k=options["top_k"],
        repacked=options.get("repacked", True),
    )


if __name__ == "__main__":
    run_side(open_side)
