"""transformers' side of ``generation.py``: ``generate`` in bf16, K returned sequences."""

from __future__ import annotations

import time
from typing import Any

import torch
from generation_workload import GenerationWorkload, Side, Timing, perplexity_of, run_side
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList


class FirstToken(StoppingCriteria):
    """Stops nothing; notes when the first token of all rows was there."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """No row is done."""
        del scores, kwargs
        self.at = self.at or time.perf_counter()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


class GenerateSide:
    """The model as transformers loads it, without an adapter."""

    def __init__(self, workload: GenerationWorkload) -> None:
        self._workload = workload
        torch.set_num_threads(workload.threads)
        self._model = AutoModelForCausalLM.from_pretrained(
            workload.folder, dtype=torch.bfloat16, local_files_only=True
        ).eval()
        # No token ends a reply.
        self._model.generation_config.eos_token_id = None
        self._model.generation_config.pad_token_id = 0

    @torch.inference_mode()
    def ask(self, request: int, replies: int) -> Timing:
        """Get K replies to the prompt of this number."""
        torch.manual_seed(request)
        first = FirstToken()
        started = time.perf_counter()
        ids = torch.tensor([self._workload.prompts[request]])
        output = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=self._workload.temperature,
            top_p=self._workload.top_p,
            top_k=0,
            num_return_sequences=replies,
            max_new_tokens=self._workload.tokens,
            stopping_criteria=StoppingCriteriaList([first]),
        )
        ended = time.perf_counter()
        assert first.at is not None
        return Timing(first.at - started, ended - started, output[:, ids.shape[1] :].numel())

    @torch.inference_mode()
    def perplexity(self) -> float | None:
        """By forward passes over whole rows."""
        likelihoods: list[float] = []
        for row in self._workload.texts:
            ids = torch.tensor([row])
            logits = self._model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            logprobs = torch.log_softmax(logits, -1).gather(-1, ids[0, 1:, None])
            likelihoods += logprobs[:, 0].tolist()
        return perplexity_of(likelihoods)

    def notes(self) -> dict[str, Any]:
        """In which form the weights are."""
        return {
            "dtype": str(self._model.dtype),
            "attention": self._model.config._attn_implementation,
        }


def open_side(workload: GenerationWorkload, options: dict[str, Any]) -> Side:
    del options
    return GenerateSide(workload)


if __name__ == "__main__":
    run_side(open_side)
