"""The measuring process of ``swap.py``: an engine, people who chat with it, versions that come."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from fresh_process import answer
from process_memory import process_memory, versions_of
from swap_streams import (
    Publication,
    Recorded,
    altered_replies,
    in_flight,
    pauses_of,
    record,
    recorded,
)
from swap_workload import SwapWorkload
from torch import Tensor
from written_adapters import perturbed, start_state, write_adapter

from chatrlhf.engine.engine import Engine
from chatrlhf.engine.requests import ChatMessage, ReplyRequest
from chatrlhf.errors import OverloadedError
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.settings import EngineSettings, ModelSettings

_QUESTIONS = (
    "Tell me about a day on a river, and who I would meet there.",
    "What came after that? Go on with the story.",
    "And how did it end for the people in the boat?",
)
_PROBE = "Say something about the weather."
_RETRY_SECONDS = 0.05
_PATIENCE_SECONDS = 600.0


class Conversation:
    """A person who asks, takes the first reply and asks on; each conversation has three turns."""

    def __init__(self, engine: Engine, workload: SwapWorkload, number: int) -> None:
        self.streams: list[Recorded] = []
        self._engine = engine
        self._workload = workload
        self._number = number
        self._stopping = threading.Event()
        self._has_text = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"conversation {number}")

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def wait_for_text(self) -> None:
        """Until the first text has come, or nothing will come."""
        self._has_text.wait(_PATIENCE_SECONDS)

    def finish(self) -> None:
        """Ask no more; wait for the answer that runs."""
        self._stopping.set()
        self._thread.join(_PATIENCE_SECONDS)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._chat()
        except BaseException as error:  # noqa: BLE001  it is raised by finish
            self._failure = error
        finally:
            self._has_text.set()

    def _chat(self) -> None:
        messages: list[ChatMessage] = []
        asked = 0
        while not self._stopping.is_set():
            if asked % len(_QUESTIONS) == 0:
                messages = []
            messages.append(ChatMessage("user", _QUESTIONS[asked % len(_QUESTIONS)]))
            request = ReplyRequest(
                tuple(messages),
                self._workload.replies,
                self._number * 1_000 + asked,
                self._workload.sampling,
            )
            kept = Recorded(request)
            self.streams.append(kept)
            for _ in record(self._engine, kept):
                if kept.first is not None:
                    self._has_text.set()
            asked += 1
            if kept.failure is not None:
                time.sleep(_RETRY_SECONDS)
            first = kept.finished.get(0)
            text = first.text.replace("\0", "") if first else ""
            messages.append(ChatMessage("assistant", text or "I do not know."))


def publish(
    engine: Engine, name: str, folder: Path, probe: ReplyRequest
) -> tuple[Publication, Recorded]:
    """Load a version and make it live, then ask for a reply at once.

    Raises:
        RuntimeError: the reply is not by that version.
    """
    began, retries = time.perf_counter(), 0
    while True:
        try:
            engine.load_version(name, folder)
            break
        except OverloadedError:
            if time.perf_counter() - began > _PATIENCE_SECONDS:
                raise
            retries += 1
            time.sleep(_RETRY_SECONDS)
    engine.set_live(name)
    flipped = time.perf_counter()
    kept = recorded(engine, probe)
    if kept.failure is not None or kept.first is None or set(kept.versions) != {name}:
        raise RuntimeError(f"the first reply of {name} was by {kept.versions}: {kept.failure}")
    return Publication(name, began, flipped, kept.first, retries), kept


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Load an engine, chat and publish, then run what was in flight again without swaps."""
    workload = SwapWorkload(**job)
    torch.set_num_threads(workload.threads)
    model = ModelSettings()
    base = load_base_model(Path(workload.folder), quantization=workload.quantization, device="cpu")
    bank = LoraBank(base.model, model.lora_rank, model.lora_alpha)
    start = start_state(base, bank)
    settings = EngineSettings(resident_versions=workload.resident_versions)
    with tempfile.TemporaryDirectory() as parent:
        folders = {}
        for number in range(workload.swaps + 1):
            state = perturbed(start, seed=number, deviation=workload.deviation) if number else start
            folders[f"v{number}"] = write_adapter(base, bank, Path(parent), f"v{number}", state)
        engine = Engine(base, bank, settings, model.context_tokens)
        engine.start()
        try:
            engine.load_version("v0", folders["v0"])
            engine.set_live("v0")
            found = under_load(engine, workload, folders)
        finally:
            engine.stop()
    return {
        **found,
        "bytes_per_version": tensor_bytes(start),
        "quantization": base.quantization,
        "versions": versions_of(("chatrlhf", "torch", "transformers")),
    }


def under_load(
    engine: Engine, workload: SwapWorkload, folders: Mapping[str, Path]
) -> dict[str, Any]:
    """The chats, the publications among them, and the comparison after them."""
    # A first request warms up what is made once.
    recorded(engine, _probe(workload, 0))
    rss = [process_memory()["now"]]
    people = [Conversation(engine, workload, one) for one in range(workload.conversations)]
    for person in people:
        person.start()
    for person in people:
        person.wait_for_text()
    publications, probes = [], []
    for number in range(1, workload.swaps + 1):
        time.sleep(workload.pause_seconds)
        name = f"v{number}"
        publication, kept = publish(engine, name, folders[name], _probe(workload, number))
        publications.append(publication)
        probes.append(kept)
        rss.append(process_memory()["now"])
    for person in people:
        person.finish()
    peak = process_memory()["peak"]
    streams = [one for person in people for one in person.streams]
    disturbed = in_flight(streams, publications)
    whole = [one for one in disturbed if not one.is_dropped]
    pauses = pauses_of([*streams, *probes], publications)
    return {
        "swaps": len(publications),
        "requests": len(streams) + len(probes),
        "dropped": sum(one.is_dropped for one in [*streams, *probes]),
        "failures": sorted({one.failure for one in streams if one.failure}),
        "requests_in_flight": len(disturbed),
        "replies_in_flight": sum(one.request.replies for one in disturbed),
        "altered": sum(altered(engine, one, folders) for one in whole),
        "replies_of_control": sum(one.request.replies for one in whole[:1]),
        "altered_in_control": sum(control(engine, one, folders) for one in whole[:1]),
        "pauses_seconds": asdict(pauses),
        "publish_seconds": [one.flipped - one.began for one in publications],
        "publish_to_first_token_seconds": [one.first - one.began for one in publications],
        "publish_retries": sum(one.retries for one in publications),
        "first_text_seconds": [end - begin for begin, end in _promptings(streams)],
        "rss": rss,
        "peak_rss": peak,
        "resident_versions": list(engine.resident_versions()),
    }


def altered(engine: Engine, one: Recorded, folders: Mapping[str, Path]) -> int:
    """Replies of a request that are others when it is run again, alone and without a swap."""
    for version in set(one.versions):
        engine.load_version(version, folders[version])
    return altered_replies(one, recorded(engine, replace(one.request, versions=one.versions)))


def control(engine: Engine, one: Recorded, folders: Mapping[str, Path]) -> int:
    """Replies that are others by another version: what ``altered`` would see."""
    other = next(name for name in folders if name not in one.versions)
    engine.load_version(other, folders[other])
    again = recorded(engine, replace(one.request, versions=(other,) * one.request.replies))
    return altered_replies(one, replace(again, versions=one.versions))


def tensor_bytes(state: Mapping[str, Tensor]) -> int:
    """Memory of an adapter as the engine holds it on a CPU, in float32."""
    return sum(4 * tensor.numel() for tensor in state.values())


def _probe(workload: SwapWorkload, number: int) -> ReplyRequest:
    sampling = replace(workload.sampling, max_new_tokens=min(8, workload.tokens))
    return ReplyRequest((ChatMessage("user", _PROBE),), 1, number, sampling)


def _promptings(streams: list[Recorded]) -> list[tuple[float, float]]:
    return [one.prompting for one in streams if one.prompting]


if __name__ == "__main__":
    answer(measure)
