"""Versions come in while replies run: nothing waits for them, nothing sees half of one."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file
from serving import RANK, Serving, replies_of
from tiny_model import write_tiny_model
from waiting import wait_for

from chatrlhf.engine.engine import Engine
from chatrlhf.engine.native_model import NativeModel
from chatrlhf.engine.version_loader import VersionLoader
from chatrlhf.errors import LoadingError, VersionError
from chatrlhf.models.adapter_files import file_sha256
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.native import decoder as native
from chatrlhf.settings import EngineSettings

needs_library = pytest.mark.skipif(native.library() is None, reason="needs a C++ compiler")
LONG = "When 12 cats sat, 34 dogs ran? " * 8


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory):
    """A model that suits the native library."""
    target = tmp_path_factory.mktemp("loader") / "gemma3"
    return write_tiny_model(target, "gemma3", hidden=256, vocab=339)


@pytest.fixture
def serve_natively(wide_folder, tmp_path):
    """Start engines that decode natively; they are stopped at the end."""
    running = []

    def started(**settings):
        base = load_base_model(wide_folder, quantization="bf16", device="cpu")
        serving = Serving(base, LoraBank(base.model, RANK, float(RANK)), tmp_path, **settings)
        running.append(serving)
        assert serving.engine.statistics()["decoding"].startswith("native")
        return serving

    yield started
    for serving in running:
        serving.engine.stop()


@pytest.fixture
def held(monkeypatch):
    """Hold the trial of versions until ``release``; ``tried`` are the adapters that came to it."""

    class Held:
        def __init__(self):
            self.tried = []
            self.go = threading.Event()

        def wait(self):
            wait_for(lambda: self.tried, 20.0)

        def release(self):
            self.go.set()

    held, real = Held(), VersionLoader._try

    def slow(loader, adapter):
        held.tried.append(adapter)
        assert held.go.wait(60.0)
        real(loader, adapter)

    monkeypatch.setattr(VersionLoader, "_try", slow)
    held.release()  # the first version is none of the test's
    return held


def tokens_of(serving):
    return serving.engine.statistics()["tokens"]


@needs_library
def test_replies_run_begin_and_end_while_a_version_is_tried(serve_natively, slow_steps, held):
    serving = serve_natively(resident_versions=2)
    requests = [
        {"text": "one", "replies": 4, "max_new_tokens": 100},
        {"text": "two", "replies": 2, "max_new_tokens": 20},
    ]
    expected = [serving.ask(**request) for request in requests]
    held.tried.clear()
    held.go.clear()
    running = serving.submit(**requests[0])
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(serving.load, "v1")
        held.wait()
        before = tokens_of(serving)
        wait_for(lambda: tokens_of(serving) > before + 20, 20.0)
        assert replies_of(serving.submit(**requests[1])) == expected[1]
        assert replies_of(running) == expected[0]
        assert serving.engine.resident_versions() == ("v0",)  # nobody can name it yet
        assert not loading.done()
        held.release()
        loading.result(60.0)
    assert set(serving.engine.resident_versions()) == {"v0", "v1"}


@needs_library
def test_replies_in_flight_have_the_same_bits_beside_many_loads(serve_natively, slow_steps):
    serving = serve_natively(resident_versions=3)
    serving.load("v1")
    requests = [
        {"text": LONG, "replies": 4, "versions": ("v0", "v1", "v0", "v1"), "max_new_tokens": 120},
        {"text": "two", "replies": 3, "versions": ("v1",) * 3, "max_new_tokens": 150},
    ]
    expected = [serving.ask(**request) for request in requests]
    streams = [serving.submit(**request) for request in requests]
    wait_for(lambda: serving.engine.statistics()["active"] == 2, 20.0)
    loads = 0
    while serving.engine.statistics()["active"]:
        serving.load(f"v{2 + loads % 2}")  # the others are in use: each goes into the third slot
        loads += 1
    assert loads > 1
    assert [replies_of(stream) for stream in streams] == expected


@needs_library
def test_a_version_that_overflows_is_refused_natively_too(serve_natively, slow_steps):
    serving = serve_natively(resident_versions=2)
    request = {"replies": 2, "max_new_tokens": 40}
    expected = serving.ask(**request)
    folder = serving.write("v1")
    path = folder / "adapter_model.safetensors"
    save_file({key: torch.full_like(one, 1e37) for key, one in load_file(path).items()}, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    stream = serving.submit(**request)
    with pytest.raises(VersionError, match="not numbers"):
        serving.load("v1")
    assert serving.engine.resident_versions() == ("v0",)
    assert replies_of(stream) == expected
    serving.load("v2")
    assert serving.ask(**request) == expected


def fail_to_try(_loader, _adapter):
    raise RuntimeError("odd")


@needs_library
@pytest.mark.parametrize("natively", [True, False])
@pytest.mark.parametrize("fault", ["trying", "dropping the prefixes"])
def test_a_load_that_fails_midway_leaves_its_slot_free(
    serve, serve_natively, monkeypatch, natively, fault
):
    serving = serve_natively(resident_versions=2) if natively else serve(resident_versions=2)
    serving.load("v1")
    serving.ask(LONG, versions=("v1",))
    assert serving.engine.statistics()["prefix_cache_tokens"] > 0
    with monkeypatch.context() as broken:
        if fault == "trying":
            broken.setattr(VersionLoader, "_try", fail_to_try)
        else:
            broken.setattr(serving.engine._prefixes, "drop", lambda _version: 1 / 0)
        with pytest.raises((RuntimeError, ZeroDivisionError)):
            serving.load("v2")
        assert serving.engine.resident_versions() == ("v0",)  # v1 made room
    serving.load("v2")
    expected = serving.ask(LONG, versions=("v2",))
    serving.load("v3")
    assert set(serving.engine.resident_versions()) == {"v0", "v3"}
    serving.load("v2")
    assert serving.ask(LONG, versions=("v2",)) == expected


def test_many_threads_that_load_get_each_version_once(serve, monkeypatch):
    tried, real = [], VersionLoader._try

    def noted(loader, adapter):
        tried.append(threading.current_thread().name)
        real(loader, adapter)

    serving = serve(resident_versions=4)
    monkeypatch.setattr(VersionLoader, "_try", noted)
    names = ["v1", "v2", "v3"]
    for name in names:
        serving.write(name)
    with ThreadPoolExecutor(9) as pool:
        list(pool.map(serving.load, names * 3))
    assert set(serving.engine.resident_versions()) == {"v0", *names}
    assert len(tried) == len(names)
    answers = [serving.ask(versions=(name,))[0].text for name in names]
    assert len(set(answers)) == len(names)


def test_a_model_that_torch_decodes_is_tried_on_the_engines_thread(serve, monkeypatch):
    tried, real = [], VersionLoader._try

    def noted(loader, adapter):
        tried.append(threading.current_thread().name)
        real(loader, adapter)

    monkeypatch.setattr(VersionLoader, "_try", noted)
    serve()
    assert tried == ["engine"]


@needs_library
def test_a_version_is_packed_before_its_first_step_and_with_one_core(serve_natively, monkeypatch):
    packed, real = [], NativeModel.adapter

    def noted(model, name):
        packed.append((threading.current_thread().name, torch.get_num_threads()))
        return real(model, name)

    monkeypatch.setattr(NativeModel, "adapter", noted)
    threads = torch.get_num_threads()
    serving = serve_natively(threads=2)
    serving.load("v1")
    packed_at_load = [(name.partition("_")[0], count) for name, count in packed[-2:]]
    assert packed_at_load == [("versions", 1)] * 2
    count = len(packed)
    for version in ("v0", "v1"):
        serving.ask(versions=(version,))
    assert len(packed) == count
    assert torch.get_num_threads() == threads
    found = []
    serving.engine._scheduler.command(lambda: found.append(torch.get_num_threads()))
    assert found == [threads]


def test_an_engine_that_does_not_run_loads_nothing(load, serve, tmp_path):
    base, bank = load()
    with pytest.raises(LoadingError, match="not running"):
        Engine(base, bank, EngineSettings()).load_version("v0", tmp_path)
    serving = serve()
    serving.engine.stop()
    with pytest.raises(LoadingError, match="not running"):
        serving.load("v1")
    assert serving.engine.resident_versions() == ("v0",)
