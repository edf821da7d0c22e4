"""The frozen base model: one set of weights that all adapters share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chatrlhf.errors import ModelError
from chatrlhf.maths.logprobs import SUPPRESSED_LOGIT
from chatrlhf.models.causal_attention import use_plain_backward
from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.models.fingerprint import base_sha256
from chatrlhf.models.gated_mlp import fuse_mlps
from chatrlhf.models.memory import count_weights
from chatrlhf.models.model_folder import check_model_folder
from chatrlhf.models.placement import (
    check_memory,
    choose_device,
    choose_dtype,
    choose_quantization,
)
from chatrlhf.models.rms_norm import fuse_norms
from chatrlhf.models.rotary import fuse_rotations
from chatrlhf.models.weights import (
    guard_cpu_nf4,
    load_tokenizer,
    load_weights,
    read_config,
    stored_quantization,
)

_CONTEXT_IF_UNSTATED = 2048


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A loaded base. B = rows, T = tokens, H = ``hidden_size``, V = ``vocab_size``.

    ``model`` is a transformers causal LM in eval mode, all parameters frozen; use ``body`` and
    ``project`` rather than calling it, so that only the wanted positions meet the vocabulary.
    """

    model: Any
    tokenizer: Any
    chat_format: ChatFormat
    folder: Path
    device: torch.device
    compute_dtype: torch.dtype
    quantization: str
    context_tokens: int
    final_logit_softcap: float | None

    @cached_property
    def base_sha256(self) -> str:
        """Hash of config and weights; an adapter fits only the base that it names."""
        return base_sha256(self.folder)

    @cached_property
    def decoder(self) -> nn.Module:
        """What turns token ids into last hidden states."""
        decoder: nn.Module = self.model.get_decoder()
        return decoder

    @cached_property
    def lm_head(self) -> nn.Linear:
        """What turns hidden states into logits; its weight is often that of the embeddings."""
        head: nn.Linear = self.model.get_output_embeddings()
        return head

    @property
    def vocab_size(self) -> int:
        """V: rows of the LM head, which may be more than the tokenizer knows."""
        return self.lm_head.out_features

    @property
    def hidden_size(self) -> int:
        """H: width of the last hidden states."""
        return self.lm_head.in_features

    def body(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,  # noqa: FBT001, FBT002  the name and order of transformers
    ) -> Any:
        """Run the decoder on ``input_ids`` (B, T); its ``last_hidden_state`` is (B, T, H).

        ``attention_mask`` (B, past + T) is 1 on real tokens; ``position_ids`` is (B, T).
        """
        return self.decoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )

    @cached_property
    def suppressed(self) -> tuple[slice, ...]:
        """Runs of token ids that are never sampled, ascending: of these no reply consists.

        Control tokens that do not end a turn, and rows of the LM head that no token has.
        """
        backend = self.tokenizer.backend_tokenizer
        rows = range(backend.get_vocab_size(), self.vocab_size)
        nameless = (row for row in rows if backend.id_to_token(row) is None)
        known = (
            token for token in self.chat_format.suppressed_token_ids if token < self.vocab_size
        )
        return _runs(sorted({*known, *nameless}))

    def sampling_logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (..., V) that tokens are sampled from: of ``suppressed`` ones, none is."""
        return self.suppress(self.project(hidden))

    def suppress(self, logits: Tensor) -> Tensor:
        """Change the model's own logits (..., V) in place into those to sample from."""
        for run in self.suppressed:
            logits[..., run] = SUPPRESSED_LOGIT
        return logits

    def project(self, hidden: Tensor) -> Tensor:
        """The model's own logits, float32 (..., V), of hidden states (..., H)."""
        logits: Tensor = self.lm_head(hidden).float()
        if self.final_logit_softcap is not None:
            logits = torch.tanh(logits / self.final_logit_softcap) * self.final_logit_softcap
        return logits


def load_base_model(
    folder: Path,
    *,
    quantization: str = "auto",
    device: str = "auto",
    training: bool = False,
) -> BaseModel:
    """Load a model folder, frozen and in eval mode.

    ``quantization`` is nf4, int8, bf16, fp32 or auto: nf4 on CUDA; elsewhere bf16 where the
    processor multiplies it natively, else fp32. Weights stored quantized stay as they are.
    ``training`` keeps nf4 layers on the CPU in the form that has right gradients, which decodes
    slower.

    Raises:
        ModelError: the folder is not a usable model, or does not fit into memory.
    """
    check_model_folder(folder)
    where = choose_device(device)
    config = read_config(folder)
    stored = stored_quantization(config, folder)
    chosen = stored or choose_quantization(quantization, where)
    if stored is None:
        check_memory(count_weights(folder), chosen, where)
    dtype = choose_dtype(chosen, where)
    tokenizer = load_tokenizer(folder)
    model = load_weights(folder, config, quantization=chosen, device=where, dtype=dtype)
    model.requires_grad_(requires_grad=False)
    model.eval()
    guard_cpu_nf4(model, training=training)
    fuse_norms(model)
    fuse_mlps(model)
    fuse_rotations(model)
    if training and where.type == "cpu":
        use_plain_backward(model)
    text_config = model.config.get_text_config()
    base = BaseModel(
        model=model,
        tokenizer=tokenizer,
        chat_format=ChatFormat(tokenizer, _end_ids(model)),
        folder=folder,
        device=where,
        compute_dtype=dtype,
        quantization=chosen,
        context_tokens=getattr(text_config, "max_position_embeddings", _CONTEXT_IF_UNSTATED),
        final_logit_softcap=getattr(text_config, "final_logit_softcapping", None),
    )
    _check_parts(base)
    return base


def _runs(ids: Sequence[int]) -> tuple[slice, ...]:
    """Ascending ids as the fewest runs."""
    edges = [at for at in range(1, len(ids)) if ids[at] != ids[at - 1] + 1]
    bounds = itertools.pairwise([0, *edges, len(ids)] if ids else [])
    return tuple(slice(ids[start], ids[stop - 1] + 1) for start, stop in bounds)


def _end_ids(model: Any) -> list[int]:
    found = model.generation_config.eos_token_id
    if found is None:
        return []
    return list(found) if isinstance(found, list) else [found]


@torch.no_grad()
def _check_parts(base: BaseModel) -> None:
    """Refuse a model whose logits are more than a projection of its last hidden states."""
    ids = torch.tensor([[base.chat_format.end_token_id, 0]], device=base.device)
    ours = base.project(base.body(ids).last_hidden_state)
    theirs = base.model(input_ids=ids, use_cache=False).logits.float()
    difference = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-3))
    if not difference < 0.05:  # rounding of bfloat16 is below 0.01; a NaN is refused too
        raise ModelError(
            f"{base.folder.name} ({base.model.config.model_type}) computes its logits in a way "
            f"that this program does not know (they differ by {difference:.0%}). Choose another."
        )
