"""A Llama-like model, and its adapters, as ``native/decoder.cpp`` wants them.

Llama, Qwen2, Qwen3, Mistral, SmolLM3, Gemma 2 and 3 are; what a model is, is read from its modules
and config, and what is not known here is refused. ``native_check.py`` compares the rest.

Notation: H hidden size, r LoRA rank, d_in and d_out the sizes of a linear layer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatrlhf.engine.kv_cache import GrowingCache, new_cache
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora_layer import LoraLinear
from chatrlhf.models.memory import readable_bytes
from chatrlhf.native import decoder as native

_NORMS = ("attention_norm", "attention_out_norm", "mlp_norm", "mlp_out_norm", "q_norm", "k_norm")
_FIXED_ROPES = {"default", "linear", "llama3", "yarn"}


class UnsupportedError(Exception):
    """The model has a part that the library does not compute; says which."""


class NativeAdapter:
    """One adapter, packed: ``updates`` is an array (layers * 4)."""

    def __init__(self, updates: Any, tensors: Sequence[Tensor]) -> None:
        self.updates = updates
        self._tensors = tensors  # the array points into them


class NativeModel:
    """Weights and sizes of a base model; ``structure`` is what the library reads.

    ``kind`` is native.INT8, which copies the weights, or native.BF16, which uses them where they
    are. The model has its adapters already (``LoraBank``).

    Raises:
        UnsupportedError: the library does not compute such a model, or memory is short.
    """

    def __init__(self, base: BaseModel, kind: int) -> None:
        self._kind = kind
        self._tensors: list[Tensor] = []  # the structures point into them
        self._ropes: list[Tensor] = []
        config = base.model.config.get_text_config()
        body: Any = base.decoder
        _check(base, config, body)
        self._places = [_places(layer) for layer in body.layers]
        self._check_memory(base)
        windows = _windows(base)
        self._layers = (native.Layer * len(body.layers))()
        for index, (layer, places) in enumerate(zip(body.layers, self._places, strict=True)):
            self._fill(self._layers[index], layer, places, body.rotary_emb)
            self._layers[index].window = windows[index]
        self.structure = self._describe(base, config, body)

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self._layers)

    def adapter(self, name: str) -> NativeAdapter:
        """Pack an adapter of the bank as it is now."""
        updates = (native.Update * (self.layers * 4))()
        tensors: list[Tensor] = []
        places = [parts for of_layer in self._places for parts in of_layer]
        for update, parts in zip(updates, places, strict=True):
            down = torch.cat([part.a[name].detach() for part in parts]).to(torch.bfloat16)
            up = torch.cat([_packed_up(part, name) for part in parts])
            tensors += [down, up]
            update.down, update.up = down.data_ptr(), up.data_ptr()
            update.rank = down.shape[0] // len(parts)
        return NativeAdapter(updates, tensors)

    def _fill(self, to: Any, layer: Any, places: list[list[LoraLinear]], rope: Any) -> None:
        attention = layer.self_attn
        to.qkv, to.o, to.gate_up, to.down = (
            self._linear([part.base for part in parts]) for parts in places
        )
        norms = _norms(layer)
        for name, module in zip(_NORMS, norms, strict=True):
            if module is not None:
                setattr(to, name, self._gain(module))
        known = [*(part for parts in places for part in parts), *filter(None, norms)]
        _check_nothing_else(layer, known)
        kind = getattr(attention, "layer_type", None)
        prefix = f"{kind}_" if hasattr(rope, f"{kind}_inv_freq") else ""
        frequencies = getattr(rope, f"{prefix}inv_freq").float()
        if frequencies.numel() * 2 != attention.head_dim:
            raise UnsupportedError("it rotates a part of each head only")
        if not getattr(attention, "use_rope", True):  # some layers of SmolLM3
            frequencies = torch.zeros_like(frequencies)
        to.inverse_frequencies = self._frequencies(frequencies)
        to.rope_scale = float(getattr(rope, f"{prefix}attention_scaling"))

    def _describe(self, base: BaseModel, config: Any, body: Any) -> native.Model:
        attention = body.layers[0].self_attn
        embedding = body.embed_tokens
        scale = getattr(embedding, "embed_scale", None)
        return native.Model(
            kind=self._kind,
            layers=self.layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=attention.head_dim,
            activation=native.ACTIVATIONS[_activation(config)],
            vocabulary=base.vocab_size,
            epsilon=config.rms_norm_eps,
            attention_scale=attention.scaling,
            attention_softcap=getattr(config, "attn_logit_softcapping", None) or 0.0,
            final_softcap=base.final_logit_softcap or 0.0,
            embedding_scale=1.0 if scale is None else float(scale.to(embedding.weight.dtype)),
            embedding=self._held(embedding.weight.detach()).data_ptr(),
            final_norm=self._gain(body.norm),
            layer=ctypes.addressof(self._layers),
            head=self._linear([base.lm_head]),
        )

    def _linear(self, parts: Sequence[nn.Linear]) -> native.Linear:
        """Layers that share their input as one structure."""
        to = native.Linear(d_in=parts[0].in_features, parts=len(parts))
        scales, biases = [], []
        for index, part in enumerate(parts):
            blocks = -(-part.out_features // native.BLOCK)
            to.sizes[index] = part.out_features
            to.first[index] = to.d_out // native.BLOCK
            to.d_out += blocks * native.BLOCK
            weight = self._held(part.weight.detach())
            if self._kind == native.INT8:
                self._tensors.pop()
                weight, scale = native.pack(weight)
                self._held(weight)
                scales.append(scale)
            to.weight[index] = weight.data_ptr()
            bias = torch.zeros(blocks * native.BLOCK)
            if part.bias is not None:
                bias[: part.out_features] = part.bias.detach()
            biases.append(bias)
        if scales:
            to.scale = self._held(torch.cat(scales)).data_ptr()
        if any(part.bias is not None for part in parts):
            to.bias = self._held(torch.cat(biases)).data_ptr()
        return to

    def _gain(self, norm: nn.Module) -> int:
        """What a norm multiplies with, whether it keeps w or w - 1; address of (H) float32."""
        weight = norm.weight
        assert isinstance(weight, Tensor)
        return self._held(norm(torch.ones(weight.shape[0])).float()).data_ptr()

    def _frequencies(self, wanted: Tensor) -> int:
        """Address of these frequencies; layers with equal ones share it, and so their angles."""
        for known in self._ropes:
            if torch.equal(known, wanted):
                return known.data_ptr()
        self._ropes.append(wanted.contiguous().clone())
        return self._ropes[-1].data_ptr()

    def _held(self, tensor: Tensor) -> Tensor:
        self._tensors.append(tensor.contiguous())
        return self._tensors[-1]

    def _check_memory(self, base: BaseModel) -> None:
        if self._kind != native.INT8:
            return
        linears = [p.base for places in self._places for parts in places for p in parts]
        needed = sum(
            native.packed_bytes(layer.out_features, layer.in_features)
            for layer in (*linears, base.lm_head)
        )
        free = psutil.virtual_memory().available
        if needed > free:
            raise UnsupportedError(
                f"its weights need {readable_bytes(needed)} more in int8, and "
                f"{readable_bytes(free)} are free"
            )


@torch.no_grad()
def _check(base: BaseModel, config: Any, body: Any) -> None:
    if base.device.type != "cpu":
        raise UnsupportedError(f"it is on {base.device}")
    for layer in (body.get_input_embeddings(), base.lm_head):
        if layer.weight.dtype is not torch.bfloat16:
            raise UnsupportedError(f"its weights are {layer.weight.dtype}, not bfloat16")
    if not all(hasattr(body, name) for name in ("layers", "embed_tokens", "norm", "rotary_emb")):
        raise UnsupportedError("its decoder has other parts than those of Llama")
    if _activation(config) not in native.ACTIVATIONS:
        raise UnsupportedError(f"its activation is {_activation(config)}")
    ropes = getattr(body.rotary_emb, "rope_type", "default")
    if not set(ropes.values() if isinstance(ropes, dict) else [ropes]) <= _FIXED_ROPES:
        raise UnsupportedError(f"its rotary embedding is {ropes}")


def _activation(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None))


def _places(layer: Any) -> list[list[LoraLinear]]:
    """The linear layers of a decoder layer, those together that share their input."""
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    names = (
        (attention, ("q_proj", "k_proj", "v_proj")),
        (attention, ("o_proj",)),
        (mlp, ("gate_proj", "up_proj")),
        (mlp, ("down_proj",)),
    )
    places: list[list[Any]] = [
        [getattr(module, name, None) for name in parts] for module, parts in names
    ]
    for part in (part for parts in places for part in parts):
        if not isinstance(part, LoraLinear):
            raise UnsupportedError(
                "its decoder layers have other linear layers than those of Llama"
            )
        if part.base.weight.dtype is not torch.bfloat16:
            raise UnsupportedError(f"its weights are {part.base.weight.dtype}, not bfloat16")
        if part.in_features % 16:
            raise UnsupportedError(f"a layer has {part.in_features} inputs, not a multiple of 16")
    head_dim = getattr(attention, "head_dim", None)
    if not isinstance(head_dim, int) or head_dim % 64:
        raise UnsupportedError(f"its heads have size {head_dim}, not a multiple of 64")
    return places


def _norms(layer: Any) -> list[Any]:
    """The norms of a decoder layer, in the order of ``_NORMS``; None where it has none."""
    attention = layer.self_attn
    inner = [getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)]
    if hasattr(layer, "pre_feedforward_layernorm"):
        names = (
            *("input_layernorm", "post_attention_layernorm"),
            *("pre_feedforward_layernorm", "post_feedforward_layernorm"),
        )
        norms = [getattr(layer, name, None) for name in names]
    else:
        before, between = (
            getattr(layer, name, None) for name in ("input_layernorm", "post_attention_layernorm")
        )
        norms = [before, None, between, None]
    if norms[0] is None or norms[2] is None:
        raise UnsupportedError("its decoder layers have other norms than those of Llama")
    for norm in filter(None, (*norms, *inner)):
        if not type(norm).__name__.endswith("RMSNorm"):
            raise UnsupportedError(f"its norms are {type(norm).__name__}")
    return [*norms, *inner]


def _check_nothing_else(layer: nn.Module, known: Sequence[nn.Module]) -> None:
    inside = {id(parameter) for module in known for parameter in module.parameters()}
    if {id(parameter) for parameter in layer.parameters()} - inside:
        raise UnsupportedError("its decoder layers have weights that are not known here")


def _windows(base: BaseModel) -> list[int]:
    cache = new_cache(base.model.config)
    if not isinstance(cache, GrowingCache):
        raise UnsupportedError("it has attention layers that are neither full nor sliding")
    return [layer.window or 0 for layer in cache.layers]


def _packed_up(layer: LoraLinear, name: str) -> Tensor:
    """B (d_out, r), times alpha / r, as (blocks, r, BLOCK) bfloat16."""
    up = (layer.b[name].detach().float() * layer.scale).to(torch.bfloat16)
    up = F.pad(up, (0, 0, 0, -up.shape[0] % native.BLOCK))
    return up.view(-1, native.BLOCK, up.shape[1]).transpose(1, 2).contiguous()
