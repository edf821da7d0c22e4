"""Versions on disk: all of it or nothing, and every change is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
import torch

from chatrlhf.errors import VersionError
from chatrlhf.models import adapter_files
from chatrlhf.models.adapter_files import (
    AdapterShape,
    Component,
    read_version,
    remove_leftovers,
    verify_folder,
    write_version,
)

SHAPE = AdapterShape(rank=2, alpha=8.0, target_modules=("v_proj", "q_proj"))
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def lora(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        KEY.format("A"): torch.randn(2, 5, generator=generator),
        KEY.format("B"): torch.randn(3, 2, generator=generator),
    }


def head():
    return {"weight": torch.linspace(-1, 1, 5), "bias": torch.tensor(0.25)}


def write(parent, name="v3", **options):
    components = {"policy": Component(lora()), "reward": Component(lora(1), head())}
    return write_version(parent, name, components, SHAPE, {"base": "abc"}, **options)


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_what_was_written_is_read(tmp_path):
    sha256 = write(tmp_path)
    found = read_version(tmp_path / "v3", sha256)
    assert found.components.keys() == {"policy", "reward"}
    assert equal(found.policy.lora, lora())
    assert found.policy.head == {}
    assert equal(found.components["reward"].lora, lora(1))
    assert equal(found.components["reward"].head, head())
    assert found.manifest["base"] == "abc"
    assert found.manifest["name"] == "v3"


def test_the_manifest_names_every_file_with_size_and_hash(tmp_path):
    sha256 = write(tmp_path)
    folder = tmp_path / "v3"
    manifest = (folder / "manifest.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == sha256
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": len(path.read_bytes()),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert json.loads(manifest)["files"] == files
    assert {"adapter_model.safetensors", "reward/head.safetensors"} <= files.keys()


def test_the_configuration_is_what_peft_expects(tmp_path):
    write(tmp_path)
    config = json.loads((tmp_path / "v3" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (2, 8.0, 0.0)
    assert set(config["target_modules"]) == {"q_proj", "v_proj"}


@pytest.mark.parametrize("place", ["adapter_model.safetensors", "reward/head.safetensors"])
def test_one_flipped_bit_is_noticed(tmp_path, place):
    sha256 = write(tmp_path)
    path = tmp_path / "v3" / place
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(VersionError, match="changed since it was published"):
        read_version(tmp_path / "v3", sha256)


def test_a_truncated_file_is_noticed(tmp_path):
    write(tmp_path)
    path = tmp_path / "v3" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VersionError, match="changed since it was published"):
        read_version(tmp_path / "v3")


def test_a_missing_file_is_noticed(tmp_path):
    write(tmp_path)
    (tmp_path / "v3" / "reward" / "head.safetensors").unlink()
    with pytest.raises(VersionError, match="is missing"):
        read_version(tmp_path / "v3")


def test_a_head_that_the_manifest_does_not_name_is_not_read(tmp_path):
    write(tmp_path)
    folder = tmp_path / "v3"
    shutil.copy(folder / "reward" / "head.safetensors", folder / "head.safetensors")
    assert read_version(folder).policy.head == {}


@pytest.mark.parametrize(
    "payload", [None, b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"format": 99, "files": {}}']
)
def test_a_folder_without_a_proper_manifest_is_no_version(tmp_path, payload):
    write(tmp_path)
    manifest = tmp_path / "v3" / "manifest.json"
    manifest.unlink()
    if payload is not None:
        manifest.write_bytes(payload)
    with pytest.raises(VersionError):
        read_version(tmp_path / "v3")


@pytest.mark.parametrize("entry", [None, {}, {"bytes": 3}, "sha256"])
def test_a_manifest_with_an_entry_of_another_form_is_refused(tmp_path, entry):
    write(tmp_path)
    change_manifest(tmp_path / "v3", {"adapter_config.json": entry})
    with pytest.raises(VersionError):
        read_version(tmp_path / "v3")


def test_a_manifest_other_than_the_published_one_is_refused(tmp_path):
    sha256 = write(tmp_path)
    with pytest.raises(VersionError, match="not the manifest that was published"):
        read_version(tmp_path / "v3", "0" * 64)
    change_manifest(tmp_path / "v3", {})
    verify_folder(tmp_path / "v3")
    with pytest.raises(VersionError, match="not the manifest that was published"):
        verify_folder(tmp_path / "v3", sha256)


@pytest.mark.parametrize("outside", ["../secret", "reward/../../secret", "{absolute}"])
def test_a_manifest_cannot_name_files_outside_the_version(tmp_path, outside):
    write(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    entry = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    change_manifest(tmp_path / "v3", {outside.format(absolute=secret): entry})
    with pytest.raises(VersionError, match="outside the version"):
        read_version(tmp_path / "v3")


def test_a_link_out_of_the_version_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "v3" / "adapter_model.safetensors"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VersionError, match="outside the version"):
        read_version(tmp_path / "v3")


def test_a_version_without_a_policy_is_refused(tmp_path):
    write_version(tmp_path, "v1", {"reward": Component(lora())}, SHAPE, {})
    with pytest.raises(VersionError, match=r"has no adapter_model\.safetensors"):
        read_version(tmp_path / "v1")


def test_a_version_is_never_overwritten(tmp_path):
    sha256 = write(tmp_path)
    with pytest.raises(VersionError, match="never overwritten"):
        write_version(tmp_path, "v3", {"policy": Component(lora(9))}, SHAPE, {})
    read_version(tmp_path / "v3", sha256)
    assert [path.name for path in tmp_path.iterdir()] == ["v3"]


@pytest.mark.parametrize("name", ["3", "v", "v1x", "../v1", "v1/..", "", "v1\n"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(VersionError, match="no version name"):
        write(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["lora", "head"])
def test_weights_that_are_not_finite_are_not_published(tmp_path, bad, where):
    weights, scalar = lora(), head()
    (weights[KEY.format("B")] if where == "lora" else scalar["weight"]).view(-1)[2] = bad
    with pytest.raises(VersionError, match="not finite"):
        write_version(tmp_path, "v1", {"policy": Component(weights, scalar)}, SHAPE, {})
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_rounds_the_adapter_and_keeps_the_head(tmp_path):
    write(tmp_path, dtype=torch.bfloat16)
    found = read_version(tmp_path / "v3")
    for key, tensor in found.policy.lora.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, lora()[key].bfloat16())
    assert equal(found.components["reward"].head, head())


class Killed(BaseException):
    """What ends a process; no ``except Exception`` sees it."""


def fsync_that_dies_at(call, calls):
    real = os.fsync

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == call:
            raise Killed
        real(descriptor)

    return fsync


@pytest.mark.parametrize("cleaned", [True, False], ids=["interrupted", "killed"])
def test_a_writer_that_dies_at_any_flush_leaves_no_version(tmp_path, monkeypatch, cleaned):
    counted: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync_that_dies_at(0, counted))
        write(tmp_path / "whole")
    for call in range(1, len(counted)):  # the last one follows the rename
        parent = tmp_path / str(call)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync_that_dies_at(call, []))
            if not cleaned:  # a killed process does not tidy up
                patch.setattr(adapter_files.shutil, "rmtree", lambda *_, **__: None)
            with pytest.raises(Killed):
                write(parent)
        assert not (parent / "v3").exists()
        assert remove_leftovers(parent) == (0 if cleaned else 1)
        assert list(parent.iterdir()) == []
        write(parent)
        read_version(parent / "v3")


def test_the_manifest_is_written_after_everything_else_was_flushed(tmp_path, monkeypatch):
    real, seen = os.fsync, []

    def fsync(descriptor):
        if os.name == "posix":
            seen.append(os.path.exists(f"{tmp_path}/.tmp-v3-{os.getpid()}/manifest.json"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path)
    files = 2 + 3 + 1  # policy's two, reward's three, and the folder reward
    assert seen[:files] == [False] * files
    assert seen[files:] == [True, True, False]  # manifest, its folder; then the renamed parent


def change_manifest(folder, files):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"].update(files)
    (folder / "manifest.json").write_text(json.dumps(manifest))
