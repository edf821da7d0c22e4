"""LoRA adapters beside one frozen base: any number of them, one or several active at a time.

Notation: B batch rows, T tokens, r rank, d_in and d_out the sizes of a wrapped linear layer.

    y = W x + (alpha / r) * B (A x),    A (r, d_in),  B (d_out, r)

after Hu et al. 2021, "LoRA", equation 3. Weights leave and enter under peft's key names
(``base_model.model.<layer>.lora_A.weight``), so that what is written to disk is a standard peft
folder. The layers are our own because rows of one batch may need different versions, a swap must
not touch ``requires_grad`` or hooks, and a decode step is bound by Python (docs/decisions.md).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from chatrlhf.errors import VersionError
from chatrlhf.models.known_states import KnownStates
from chatrlhf.models.lora_layer import ActiveAdapter, LoraLinear, RowStack

_PEFT_PREFIX = "base_model.model."


class LoraBank:
    """All adapters of one base model.

    Threads may apply adapters at the same time, each its own, while another thread adds, removes or
    loads one that none of them applies; an adapter is for one thread at a time while it changes.
    Replaces, in place, every linear layer inside the decoder layers (bitsandbytes' layers are
    linear layers too); the LM head stays as it is.
    """

    def __init__(self, model: nn.Module, rank: int, alpha: float) -> None:
        self.rank = rank
        self.alpha = alpha
        self._active = ActiveAdapter()
        self._layers: dict[str, LoraLinear] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._revisions: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self.known: KnownStates | None = None  # only while none of the adapters in it changes
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and ".layers." in f".{name}":
                wrapped = LoraLinear(module, len(self._layers), alpha / rank, self._active)
                parent_name, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent_name), leaf, wrapped)
                self._layers[name] = wrapped
        if not self._layers:
            raise VersionError(
                "This model has no linear layers inside decoder layers to adapt. "
                "Choose a decoder language model."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters, in the order in which they were added."""
        return tuple(self._dtypes)

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Leaf names of the wrapped layers, as peft's ``target_modules`` wants them."""
        return tuple(sorted({name.rpartition(".")[2] for name in self._layers}))

    def add(
        self,
        name: str,
        *,
        trainable: bool = False,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        """Add an adapter that changes nothing yet (B is zero, A uniform as in peft).

        ``dtype`` is what the weights are kept in: float32 for training, the compute type for
        decoding, which saves a cast in every layer of every step.
        """
        if name in self._dtypes:
            raise ValueError(f"adapter {name!r} exists already")
        generator = torch.Generator().manual_seed(seed)
        for layer in self._layers.values():
            device = layer.base.weight.device
            bound = 1.0 / math.sqrt(layer.in_features)
            a = torch.empty(self.rank, layer.in_features).uniform_(
                -bound, bound, generator=generator
            )
            b = torch.zeros(layer.out_features, self.rank)
            layer.a[name] = nn.Parameter(a.to(device, dtype), requires_grad=trainable)
            layer.b[name] = nn.Parameter(b.to(device, dtype), requires_grad=trainable)
        self._dtypes[name] = dtype
        self.mark_changed(name)

    def remove(self, name: str) -> None:
        """Forget an adapter and free its memory."""
        self._require(name)
        if self._active.name == name:
            raise ValueError(f"adapter {name!r} is active")
        for layer in self._layers.values():
            del layer.a[name], layer.b[name]
        del self._dtypes[name]

    def parameters_of(
        self, name: str, inside: Iterable[nn.Module] | None = None
    ) -> list[nn.Parameter]:
        """The tensors of one adapter, always in the same order; of these modules, or of all."""
        self._require(name)
        layers = list(self._layers.values())
        if inside is not None:
            within = {id(part) for module in inside for part in module.modules()}
            layers = [layer for layer in layers if id(layer) in within]
        return [p for layer in layers for p in (layer.a[name], layer.b[name])]

    def state_of(self, name: str) -> dict[str, Tensor]:
        """A float32 copy of one adapter on the CPU, under peft's key names."""
        self._require(name)
        state: dict[str, Tensor] = {}
        for layer_name, layer in self._layers.items():
            for side, parameter in (("A", layer.a[name]), ("B", layer.b[name])):
                key = f"{_PEFT_PREFIX}{layer_name}.lora_{side}.weight"
                state[key] = parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        return state

    def load_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Copy weights into an adapter that exists; nothing is copied unless all of it fits.

        Raises:
            VersionError: a key is missing or unknown, a shape differs, a value is not finite.
        """
        self._require(name)
        targets = self._targets(name)
        self.check_state(state)
        with torch.no_grad():
            for key, parameter in targets.items():
                parameter.copy_(state[key])
        self.mark_changed(name)

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Check that ``state`` has the keys and shapes of this bank and finite values.

        Raises:
            VersionError: it has not.
        """
        shapes = self._shapes()
        if missing := sorted(shapes.keys() - state.keys()):
            raise VersionError(
                f"The adapter lacks {len(missing)} of {len(shapes)} tensors, first {missing[0]}. "
                "It was made for another base model."
            )
        if unknown := sorted(state.keys() - shapes.keys()):
            raise VersionError(
                f"The adapter has {len(unknown)} tensors that this base has no place for, "
                f"first {unknown[0]}. It was made for another base model."
            )
        for key, shape in shapes.items():
            if tuple(state[key].shape) != shape:
                raise VersionError(
                    f"{key} has shape {tuple(state[key].shape)}, this base needs {shape}."
                )
            if not bool(torch.isfinite(state[key]).all()):
                raise VersionError(f"{key} holds values that are not finite.")

    def copy(self, source: str, target: str) -> None:
        """Copy the weights of one adapter into another."""
        self._require(source)
        self._require(target)
        pairs = zip(self.parameters_of(source), self.parameters_of(target), strict=True)
        with torch.no_grad():
            for from_, to in pairs:
                to.copy_(from_)
        self.mark_changed(target)

    def are_equal(
        self, one: str | None, other: str | None, inside: Iterable[nn.Module] | None = None
    ) -> bool:
        """Whether two adapters have the same weights, in these modules or everywhere."""
        if one is None or other is None or one == other:
            return one == other
        inside = None if inside is None else list(inside)
        pairs = zip(self.parameters_of(one, inside), self.parameters_of(other, inside), strict=True)
        return all(torch.equal(ours, theirs) for ours, theirs in pairs)

    def revision(self, name: str) -> int:
        """A number that no other content of this adapter had, nor that of another.

        Whoever changes the tensors otherwise than by this class says so by ``mark_changed``.
        """
        self._require(name)
        return self._revisions[name]

    def mark_changed(self, name: str) -> None:
        """Give the content of an adapter a new ``revision``."""
        self._revisions[name] = next(self._numbers)

    def fingerprint(self, name: str) -> str:
        """SHA-256 over the weights of one adapter, to prove that a step left it alone."""
        digest = hashlib.sha256()
        for key, tensor in self.state_of(name).items():
            digest.update(key.encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def stack(self, names: Sequence[str]) -> RowStack:
        """The adapters of a batch with one name per row; make it once a batch."""
        for name in names:
            self._require(name)
        return RowStack(names)

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Apply one adapter to all rows; None applies none."""
        if name is not None:
            self._require(name)
        with self._switched(name, None):
            yield

    @contextmanager
    def using_rows(self, rows: RowStack | Sequence[str]) -> Iterator[None]:
        """Apply one adapter per batch row."""
        stack = rows if isinstance(rows, RowStack) else self.stack(rows)
        with self._switched(None, stack):
            yield

    def as_now(self) -> AbstractContextManager[None]:
        """Apply, whenever it is entered, the adapters that apply now."""
        return self._switched(self._active.name, self._active.rows)

    @contextmanager
    def _switched(self, name: str | None, rows: RowStack | None) -> Iterator[None]:
        before = (self._active.name, self._active.rows)
        self._active.name, self._active.rows = name, rows
        try:
            yield
        finally:
            self._active.name, self._active.rows = before

    def _require(self, name: str) -> None:
        if name not in self._dtypes:
            raise ValueError(f"there is no adapter {name!r}; there are {sorted(self._dtypes)}")

    def _targets(self, name: str) -> dict[str, nn.Parameter]:
        keys = list(self._shapes())
        return dict(zip(keys, self.parameters_of(name), strict=True))

    def _shapes(self) -> dict[str, tuple[int, int]]:
        shapes: dict[str, tuple[int, int]] = {}
        for layer_name, layer in self._layers.items():
            shapes[f"{_PEFT_PREFIX}{layer_name}.lora_A.weight"] = (self.rank, layer.in_features)
            shapes[f"{_PEFT_PREFIX}{layer_name}.lora_B.weight"] = (layer.out_features, self.rank)
        return shapes
