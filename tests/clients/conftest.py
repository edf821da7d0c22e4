"""One real server with a tiny model and two versions, for real clients of the OpenAI protocol."""

from __future__ import annotations

import pytest
from random_versions import publish_random_versions
from real_server import RealServer
from tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """``v0`` is live; ``v1`` answers otherwise."""
    folder = tmp_path_factory.mktemp("clients")
    model = write_tiny_model(folder / "model", "gemma3", max_position_embeddings=256)
    assert publish_random_versions(folder / "data", str(model), 1, scale=0.3) == ["v1"]
    environment = {"CHATRLHF_ROUND_AUTOMATIC": "false", "CHATRLHF_MODEL_QUANTIZATION": "fp32"}
    made = RealServer(
        folder / "data", "--model", str(model), "--no-trainer", environment=environment
    )
    yield made.wait_until_loaded()
    made.stop()
