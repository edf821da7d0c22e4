"""Whether decode steps may run in the native library: a comparison with torch at start."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.native_model import NativeModel, UnsupportedError
from chatrlhf.engine.native_step import NativeDecoder
from chatrlhf.engine.requests import ChatMessage
from chatrlhf.maths.logprobs import SUPPRESSED_LOGIT
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.native import decoder as native

logger = logging.getLogger(__name__)

# Of int8 weights the relative difference of the logits is some percent, of a wrong formula more
# than that of unrelated logits.
_MOST_DIFFERENCE = 0.2
_MOST_KL = 0.1
_STEPS = 3
_TEXTS = ("Hello! What is two and two?", "Name three birds that live near water, and say why.")
_ADAPTER = "native-check"


def native_decoder(
    base: BaseModel, bank: LoraBank, kind: int, threads: int
) -> NativeDecoder | None:
    """The native decoder of a model; None, with the reason logged, where torch is to decode.

    ``kind`` is native.INT8 or native.BF16. Call it while no other thread uses the model.
    """
    started = time.monotonic()
    try:
        if base.device.type != "cpu" or base.compute_dtype is not torch.bfloat16:
            raise UnsupportedError(f"it computes in {base.compute_dtype} on {base.device}")
        model = NativeModel(base, kind)
        if native.library() is None:
            return None
        decoder = NativeDecoder(model, bank, threads)
        compare(base, bank, decoder)
    except UnsupportedError as reason:
        logger.info("decoding runs on torch: %s: %s", base.folder.name, reason)
        return None
    except Exception:
        logger.exception("decoding runs on torch, as the native library cannot be used")
        return None
    logger.info("decoding runs on %s, ready in %.1f s", decoder, time.monotonic() - started)
    return decoder


@torch.inference_mode()
def compare(base: BaseModel, bank: LoraBank, decoder: NativeDecoder) -> None:
    """Decode some steps by both ways, two rows, one padded, with an adapter; and read prompts.

    Raises:
        UnsupportedError: their logits differ by more than rounding.
    """
    generator = torch.Generator().manual_seed(0)
    prompts = [base.chat_format.encode_prompt([ChatMessage("user", text)]) for text in _TEXTS]
    with _random_adapter(bank, generator) as adapter:
        names = [adapter] * len(prompts)
        torchs, ours = (
            DecodeState.prefill(base, bank, prompts, adapters=names, native=one)
            for one in (None, decoder)
        )
        if not decoder.fits(ours.cache):
            raise UnsupportedError("its keys and values are not kept as the library needs them")
        for _ in range(_STEPS):
            token_ids = torchs.logits.argmax(-1)
            pair = (torchs.step(token_ids), ours.step(token_ids))
            sampled = pair[0][0] > SUPPRESSED_LOGIT / 2
            _check_logits(*(logits[:, sampled] for logits in pair))
        for prompt in prompts:
            whole = DecodeState.prefill(base, bank, [prompt], adapters=[adapter]).logits
            ours = DecodeState(base, bank, adapters=[adapter], native=decoder)
            ours.read(prompt, math.inf, has_logits=True)
            _check_logits(whole[:, sampled], ours.logits[:, sampled])


def _check_logits(torchs: Tensor, ours: Tensor) -> None:
    """Compare logits (B, V), whose common shift means nothing."""
    a, b = (logits - logits.mean(-1, keepdim=True) for logits in (torchs, ours))
    difference = float((a - b).norm() / a.norm())
    log_p, log_q = torchs.log_softmax(-1), ours.log_softmax(-1)
    kl = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    logger.debug("native logits differ by %.4f, KL %.5f", difference, kl)
    if not (difference <= _MOST_DIFFERENCE and kl <= _MOST_KL):  # also if one is not a number
        raise UnsupportedError(
            f"the native library computes other logits than torch (they differ by {difference:.0%} "
            f"of their spread, KL {kl:.2g})"
        )


@contextmanager
def _random_adapter(bank: LoraBank, generator: torch.Generator) -> Iterator[str]:
    bank.add(_ADAPTER)
    try:
        for parameter in bank.parameters_of(_ADAPTER)[1::2]:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        bank.mark_changed(_ADAPTER)
        yield _ADAPTER
    finally:
        bank.remove(_ADAPTER)
