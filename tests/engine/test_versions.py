"""Hot swap: versions are pinned, verified, never overwritten in use."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from serving import replies_of

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.errors import OverloadedError, VersionError
from chatrlhf.models.adapter_files import file_sha256


def wait_for_tokens(serving, more):
    wanted = serving.engine.statistics()["tokens"] + more
    while serving.engine.statistics()["tokens"] < wanted:
        time.sleep(0.002)


def test_a_swap_while_replies_stream_leaves_them_as_without_it(serve, slow_steps):
    serving = serve()
    request = {"replies": 4, "max_new_tokens": 100, "temperature": 0.8}
    expected = serving.ask(**request)
    stream = serving.submit(**request)
    wait_for_tokens(serving, 20)
    serving.load("v1")
    serving.engine.set_live("v1")
    assert serving.engine.statistics()["active"] == 1  # it still streams
    after = serving.ask(replies=4, max_new_tokens=100, temperature=0.8)
    assert replies_of(stream) == expected
    assert {reply.version for reply in after} == {"v1"}
    assert [reply.text for reply in after] != [reply.text for reply in expected]
    serving.engine.set_live("v0")
    assert serving.ask(**request) == expected


def test_two_people_on_two_versions_get_what_they_get_alone(serve, slow_steps):
    serving = serve()
    serving.load("v1")
    asks = [
        {"text": "one", "versions": ("v0",) * 3, "replies": 3},
        {"text": "one", "versions": ("v1",) * 2, "replies": 2},
    ]
    alone = [serving.ask(**ask) for ask in asks]
    together = [serving.submit(**ask) for ask in asks]
    wait_for_tokens(serving, 5)
    assert serving.engine.statistics()["active"] == 2
    assert [replies_of(stream) for stream in together] == alone
    assert alone[0][0].text != alone[1][0].text


def test_versions_mixed_in_one_request_answer_as_alone(serve):
    serving = serve()
    serving.load("v1")
    mixed = serving.ask(replies=4, versions=("v1", "v0", "v1", "v0"), max_new_tokens=40)
    for version in ("v0", "v1"):
        alone = serving.ask(replies=4, versions=(version,) * 4, max_new_tokens=40)
        for row in range(4):
            if mixed[row].version == version:
                assert mixed[row].token_ids == alone[row].token_ids


def test_no_prefix_is_shared_between_versions(serve):
    serving = serve()
    serving.load("v1")
    text = "When 12 cats sat, 34 dogs ran? " * 6
    fresh = {}
    for version in ("v1", "v0"):
        fresh[version] = serving.ask(text, versions=(version,))
        assert serving.engine.statistics()["prefix_cache_hits"] == 0
    for version in ("v1", "v0"):
        assert serving.ask(text, versions=(version,)) == fresh[version]
    assert serving.engine.statistics()["prefix_cache_hits"] == 2
    assert fresh["v0"][0].text != fresh["v1"][0].text


def test_a_reused_slot_has_no_prefixes_of_the_version_before(serve):
    serving = serve(resident_versions=2)
    text = "When 12 cats sat, 34 dogs ran? " * 6
    serving.load("v1")
    expected = serving.ask(text, versions=("v1",))
    serving.load("v2")
    assert set(serving.engine.resident_versions()) == {"v0", "v2"}
    assert serving.engine.statistics()["prefix_cache_tokens"] == 0
    serving.load("v1")
    assert serving.ask(text, versions=("v1",)) == expected
    assert serving.engine.statistics()["prefix_cache_hits"] == 0


@pytest.mark.parametrize(("family", "quantization"), [("llama", "fp32"), ("gemma3", "bf16")])
def test_the_next_turn_is_the_same_with_and_without_the_prefix_cache(serve, family, quantization):
    with_cache = serve(family, quantization)
    without = serve(family, quantization, prefix_cache_tokens=0)
    talk = [ChatMessage("user", "When 12 cats sat, 34 dogs ran? " * 9)]
    for turn in range(4):
        replies = with_cache.ask(tuple(talk), replies=2, seed=turn)
        assert replies == without.ask(tuple(talk), replies=2, seed=turn)
        talk += [
            ChatMessage("assistant", "A good reply"),
            ChatMessage("user", "Where is the dog?"),
        ]
        assert with_cache.engine.statistics()["prefix_cache_hits"] == turn
    assert without.engine.statistics()["prefix_cache_tokens"] == 0


def test_a_version_in_use_keeps_its_slot(serve, slow_steps):
    serving = serve(resident_versions=2)
    serving.load("v1")
    stream = serving.submit(versions=("v1",), max_new_tokens=150, temperature=0.3)
    serving.write("v2")
    with pytest.raises(OverloadedError, match="in use"):
        serving.load("v2")
    stream.cancel()
    replies_of(stream)
    serving.load("v2")
    assert set(serving.engine.resident_versions()) == {"v0", "v2"}


def test_the_least_recently_used_version_makes_room(serve):
    serving = serve(resident_versions=3)
    serving.load("v1")
    serving.load("v2")
    serving.ask(versions=("v1",), max_new_tokens=2)
    time.sleep(0.05)
    serving.load("v3")
    assert set(serving.engine.resident_versions()) == {"v0", "v1", "v3"}


def test_loading_a_version_twice_changes_nothing(serve):
    serving = serve()
    serving.load("v1")
    shutil.rmtree(serving.folder / "v1")
    serving.engine.load_version("v1", serving.folder / "v1")
    assert serving.engine.resident_versions() == ("v0", "v1")


def flip_a_bit(folder):
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def truncate(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def rewrite(folder, change):
    """Change the tensors and make the manifest agree, as a wrong publisher would."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def put_nan(tensors):
    next(iter(tensors.values()))[0, 0] = float("nan")


def reshape(tensors):
    key = next(iter(tensors))
    tensors[key] = tensors[key].T.contiguous()[:2].clone()


def drop_one(tensors):
    del tensors[next(iter(tensors))]


def make_huge(tensors):
    for tensor in tensors.values():
        tensor.fill_(1e37)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_bit, "SHA-256"),
        (truncate, "changed"),
        (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
        (lambda folder: rewrite(folder, put_nan), "not finite"),
        (lambda folder: rewrite(folder, reshape), "shape"),
        (lambda folder: rewrite(folder, drop_one), "lacks"),
        (lambda folder: rewrite(folder, make_huge), "not numbers"),
    ],
    ids=["bit flip", "truncated", "no manifest", "nan", "shape", "missing tensor", "overflow"],
)
def test_a_bad_version_is_refused_and_the_old_one_serves_on(serve, slow_steps, damage, words):
    serving = serve(resident_versions=2)
    expected = serving.ask(replies=2, max_new_tokens=40)
    stream = serving.submit(replies=2, max_new_tokens=40)
    damage(serving.write("v1"))
    with pytest.raises(VersionError, match=words):
        serving.engine.load_version("v1", serving.folder / "v1")
    assert serving.engine.resident_versions() == ("v0",)
    assert serving.engine.live_version == "v0"
    assert replies_of(stream) == expected
    serving.load("v2")
    assert serving.ask(replies=2, max_new_tokens=40) == expected


def test_a_version_of_another_model_is_refused(serve):
    llama, gemma = serve("llama"), serve("gemma3")
    folder = gemma.write("v5")
    with pytest.raises(VersionError, match="made for the base"):
        llama.engine.load_version("v5", folder)


def test_adapters_in_slots_are_the_weights_on_disk(serve):
    serving = serve()
    adapter = serving.engine._slots.pin(["v0"])[0]
    on_disk = load_file(serving.folder / "v0" / "adapter_model.safetensors")
    for key, tensor in serving.bank.state_of(adapter).items():
        assert torch.equal(tensor, on_disk[key])
