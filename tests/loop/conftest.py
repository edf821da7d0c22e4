"""Rows and tiny models for the tests of the loop."""

from __future__ import annotations

import pytest
from tiny_model import write_tiny_model

from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from storage.database import open_database


@pytest.fixture
def db(tmp_path):
    made = open_database(tmp_path / "chatrlhf.db")
    yield made
    made.close()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    # Weights large enough that a frozen random base has features to learn from.
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", initializer_range=0.3)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A tiny base and its bank."""
    base = load_base_model(
        write_tiny_model(tmp_path_factory.mktemp("m") / "tiny", hidden=32), quantization="fp32"
    )
    return base, LoraBank(base.model, 4, 4.0)
