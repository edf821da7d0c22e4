"""Versions come into memory on a thread of their own, beside the steps of running replies.

A version is copied into a slot that nobody decodes with, tried on a prompt there and packed for
decode steps, before any request can name it. The thread gives torch one core, so that running
replies keep most of the machine. Only the prefixes of a version that makes room are dropped on
the engine's thread, which owns them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.native_step import NativeDecoder
from chatrlhf.engine.requests import ChatMessage
from chatrlhf.engine.slots import Slots
from chatrlhf.engine.torch_threads import pool_of_single_threads
from chatrlhf.errors import LoadingError, VersionError
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank

_CANARY = (ChatMessage("user", "Hello! What is two and two?"),)

Command = Callable[[Callable[[], None]], None]


class VersionLoader:
    """Loads versions one after another. Thread safe.

    ``command`` has the engine's thread do something between two steps, and waits for it.
    """

    def __init__(
        self,
        base: BaseModel,
        bank: LoraBank,
        slots: Slots,
        native: NativeDecoder | None,
        command: Command,
    ) -> None:
        self._base = base
        self._bank = bank
        self._slots = slots
        self._native = native
        self._command = command
        self._pool = pool_of_single_threads(1, "versions")

    def stop(self) -> None:
        """Load no more; whoever waits still gets an answer."""
        self._pool.shutdown(wait=False)

    def load(self, name: str, folder: Path) -> None:
        """Read, verify, copy and try a version; nothing happens if it is in memory.

        Raises:
            VersionError: the files are corrupt, do not fit the base, or the model answers with
                values that are not numbers.
            OverloadedError: all slots are in use.
            LoadingError: the engine stopped.
        """
        if name in self._slots.resident:
            return
        try:
            loading = self._pool.submit(self._load, name, folder)
        except RuntimeError as error:
            raise LoadingError("The engine stopped. Start it again.") from error
        loading.result()

    def _load(self, name: str, folder: Path) -> None:
        if name in self._slots.resident:
            return
        files = read_version(folder)
        check_base(self._base, files.manifest)
        self._bank.check_state(files.policy.lora)
        self._slots.load(name, files.policy.lora, self._check)

    def _check(self, adapter: str) -> None:
        if self._native is None:
            # Layers and rotations that are not known may keep something from pass to pass.
            self._command(lambda: self._try(adapter))
        else:
            self._try(adapter)
            self._native.pack(adapter)

    @torch.inference_mode()
    def _try(self, adapter: str) -> None:
        prompt = self._base.chat_format.encode_prompt(_CANARY)
        state = DecodeState.prefill(self._base, self._bank, [prompt], adapters=[adapter])
        if not bool(torch.isfinite(state.logits).all()):
            raise VersionError(
                "With this version the model answers with values that are not numbers."
            )


def check_base(base: BaseModel, manifest: Mapping[str, Any]) -> None:
    """Check that a version was made for this base.

    Raises:
        VersionError: it was made for another.
    """
    made_for = manifest.get("base", {}).get("sha256")
    if made_for and made_for != base.base_sha256:
        raise VersionError(
            f"The version was made for the base {made_for[:12]}..., and this one is "
            f"{base.base_sha256[:12]}.... Choose the model it was made for."
        )
