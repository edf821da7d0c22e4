"""Adapter versions in memory: immutable, pinned by the requests that use them.

Each version lives in one slot of the bank. A slot in use is never overwritten: a new version
goes into an empty slot, or into that of the least recently used version that nobody has pinned
and that is not live.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from chatrlhf.errors import LoadingError, NotFoundError, OverloadedError
from chatrlhf.models.lora import LoraBank


class Slots:
    """Versions and the slots they live in. Thread safe, but for ``load``: one thread at a time.

    ``on_evict`` is called with the name of a version before its slot is reused, on the thread that
    loads.
    """

    def __init__(
        self,
        bank: LoraBank,
        count: int,
        dtype: torch.dtype,
        on_evict: Callable[[str], None],
    ) -> None:
        self._bank = bank
        self._on_evict = on_evict
        self._lock = threading.Lock()
        self._empty = [f"s{index}" for index in range(count)]
        self._adapters: OrderedDict[str, str] = OrderedDict()  # least recently used first
        self._pins: dict[str, int] = {}
        self._live: str | None = None
        for name in self._empty:
            bank.add(name, dtype=dtype)

    @property
    def live(self) -> str:
        """The version that new requests get.

        Raises:
            LoadingError: none was set yet.
        """
        if self._live is None:
            raise LoadingError("No version is live yet. Try again soon.")
        return self._live

    @property
    def is_live_set(self) -> bool:
        """Whether a version is live."""
        return self._live is not None

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the versions in memory, least recently used first."""
        with self._lock:
            return tuple(self._adapters)

    def set_live(self, version: str) -> None:
        """Give new requests this version.

        Raises:
            NotFoundError: it is not in memory.
        """
        with self._lock:
            self._touch(version)
            self._live = version

    def pin(self, versions: Sequence[str]) -> tuple[str, ...]:
        """Hold versions in memory until ``unpin``; their adapters, in the same order.

        Raises:
            NotFoundError: one is not in memory; nothing is pinned then.
        """
        with self._lock:
            for version in versions:
                self._touch(version)
            for version in versions:
                self._pins[version] = self._pins.get(version, 0) + 1
            return tuple(self._adapters[version] for version in versions)

    def unpin(self, versions: Sequence[str]) -> None:
        """Undo one ``pin``."""
        with self._lock:
            for version in versions:
                self._pins[version] -= 1
                if not self._pins[version]:
                    del self._pins[version]

    def load(self, version: str, lora: Mapping[str, Tensor], check: Callable[[str], None]) -> None:
        """Copy a version into a free slot and ``check`` the adapter there; nothing if resident.

        Until it is checked nobody can name it, and where anything fails its slot is free again.

        Raises:
            VersionError: the weights do not fit, or the check refuses them.
            OverloadedError: all slots are pinned or live.
        """
        if version in self.resident:
            return
        adapter, evicted = self._free_slot()
        try:
            if evicted is not None:
                self._on_evict(evicted)
            self._bank.load_state(adapter, lora)
            check(adapter)
        except BaseException:
            with self._lock:
                self._empty.append(adapter)
            raise
        with self._lock:
            self._adapters[version] = adapter

    def _free_slot(self) -> tuple[str, str | None]:
        """A slot, and the version that left it."""
        with self._lock:
            if self._empty:
                return self._empty.pop(), None
            for version in self._adapters:
                if version not in self._pins and version != self._live:
                    return self._adapters.pop(version), version
            names = ", ".join(self._adapters)
        raise OverloadedError(
            f"All {len(self._adapters)} versions in memory are in use ({names}). Try again when "
            "running replies have ended, or raise engine.resident_versions."
        )

    def _touch(self, version: str) -> None:
        if version not in self._adapters:
            names = ", ".join(self._adapters) or "none"
            raise NotFoundError(f"Version {version} is not in memory; there are: {names}.")
        self._adapters.move_to_end(version)
