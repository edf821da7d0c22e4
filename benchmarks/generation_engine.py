"""The engine's side of ``generation.py``: requests as a person's, with a version live."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from asking import ask
from generation_workload import GenerationWorkload, Side, Timing, perplexity_of, run_side
from written_adapters import start_state, write_adapter

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.engine import Engine
from chatrlhf.engine.native_check import native_decoder
from chatrlhf.engine.native_step import NativeDecoder
from chatrlhf.engine.requests import ChatMessage, ReplyRequest, Sampling
from chatrlhf.engine.small_batch import FILLED_ROWS
from chatrlhf.models.base_model import BaseModel, load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.native import decoder as native
from chatrlhf.settings import EngineSettings, ModelSettings


class EngineSide:
    """The engine with a version live."""

    def __init__(self, workload: GenerationWorkload) -> None:
        self._workload = workload
        torch.set_num_threads(workload.threads)
        settings = ModelSettings()
        self._base = load_base_model(
            Path(workload.folder), quantization=workload.quantization, device="cpu"
        )
        # No token ends a reply.
        self._base.chat_format.end_token_ids = frozenset()
        self._bank = LoraBank(self._base.model, settings.lora_rank, settings.lora_alpha)
        state = start_state(self._base, self._bank)
        self._engine = Engine(self._base, self._bank, EngineSettings(), settings.context_tokens)
        self._engine.start()
        with tempfile.TemporaryDirectory() as folder:
            version = write_adapter(self._base, self._bank, Path(folder), "v0", state)
            self._engine.load_version("v0", version)
        self._engine.set_live("v0")

    @property
    def engine(self) -> Engine:
        """The engine, running."""
        return self._engine

    @property
    def sampling(self) -> Sampling:
        """That of the workload."""
        return Sampling(
            temperature=self._workload.temperature,
            top_p=self._workload.top_p,
            max_new_tokens=self._workload.tokens,
        )

    def ask(self, request: int, replies: int) -> Timing:
        """Get K replies to the prompt of this number."""
        messages = (ChatMessage("user", self._workload.questions[request]),)
        return ask(self._engine, ReplyRequest(messages, replies, request, self.sampling))

    def perplexity(self) -> float | None:
        """Of the base without an adapter, as the other sides have none; decoded as replies are."""
        self._engine.stop()
        decoder = native_decoder(self._base, self._bank, native.INT8, self._workload.threads)
        return decode_perplexity(self._base, self._bank, decoder, self._workload.texts)

    def notes(self) -> dict[str, Any]:
        """In which form the weights are, and what decodes."""
        return {
            "quantization": self._base.quantization,
            "dtype": str(self._base.compute_dtype),
            "decoding": self._engine.statistics()["decoding"],
        }


@torch.inference_mode()
def decode_perplexity(
    base: BaseModel, bank: LoraBank, decoder: NativeDecoder | None, texts: list[list[int]]
) -> float:
    """Perplexity in the very steps that replies are made of: a token a row and step.

    Args:
        base: the model.
        bank: its adapters, none of which is used.
        decoder: what the engine decodes with; None: torch.
        texts: token ids, (B, T).
    """
    likelihoods: list[float] = []
    for begin in range(0, len(texts), FILLED_ROWS):
        rows = torch.tensor(texts[begin : begin + FILLED_ROWS])
        state = DecodeState.prefill(
            base, bank, rows[:, :1].tolist(), adapters=[None] * len(rows), native=decoder
        )
        for position in range(1, rows.shape[1]):
            targets = rows[:, position : position + 1]
            logprobs = torch.log_softmax(state.logits.cpu().float(), -1).gather(-1, targets)
            likelihoods += logprobs[:, 0].tolist()
            if position + 1 < rows.shape[1]:
                state.step(targets[:, 0])
    return perplexity_of(likelihoods)


def open_side(workload: GenerationWorkload, _options: dict[str, Any]) -> Side:
    return EngineSide(workload)


if __name__ == "__main__":
    run_side(open_side)
