"""Tiny models, their banks, and engines that are stopped at the end."""

from __future__ import annotations

import time

import pytest
from serving import RANK, Serving
from tiny_model import write_tiny_model

from chatrlhf.engine.drawing import Drawer
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Folder of a tiny model of a family, written once."""
    written = {}

    def folder(family):
        if family not in written:
            target = tmp_path_factory.mktemp("models") / family
            written[family] = write_tiny_model(target, family)
        return written[family]

    return folder


@pytest.fixture
def load(model_folder):
    """A fresh base and bank; fresh, because a bank changes the model."""

    def loaded(family="llama", quantization="fp32"):
        base = load_base_model(model_folder(family), quantization=quantization, device="cpu")
        return base, LoraBank(base.model, RANK, float(RANK))

    return loaded


@pytest.fixture
def slow_steps(monkeypatch):
    """Make every sampling step take a moment, so that a test can act while replies run."""
    real = Drawer.draw

    def slow(*args):
        time.sleep(0.01)
        return real(*args)

    monkeypatch.setattr(Drawer, "draw", slow)


@pytest.fixture
def serve(load, tmp_path):
    """Start engines on tiny models; they are stopped at the end."""
    running = []

    def started(family="llama", quantization="fp32", **settings):
        base, bank = load(family, quantization)
        folder = tmp_path / f"versions{len(running)}"
        folder.mkdir()
        serving = Serving(base, bank, folder, **settings)
        running.append(serving)
        return serving

    yield started
    for serving in running:
        serving.engine.stop()
