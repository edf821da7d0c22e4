"""Twenty seconds of the soak against a tiny model."""

from __future__ import annotations

import pytest
import soak
from tiny_model import write_tiny_model

MIB = 2**20


@pytest.mark.slow
def test_memory_stays_flat_and_no_request_is_lost(tmp_path, monkeypatch):
    model = write_tiny_model(tmp_path / "model", "gemma3")
    monkeypatch.setenv("CHATRLHF_MODEL_QUANTIZATION", "fp32")
    plan = soak.Plan(
        seconds=20.0, cycle_seconds=1.5, clients=8, flood=120, versions=4, least_cycles=9
    )
    seen = soak.run(str(model), plan)
    assert seen.lost == []
    assert seen.wrong == []
    assert seen.started == seen.ended > 9 * 120
    assert seen.swaps >= 4
    for outcome in (
        "whole: answered",
        "stream: answered",
        "cut stream: cut",
        "cut whole: cut",
        "fixed: same",
        "too long: refused",
        "refused: refused",
        "flood: answered",
        "flood: shed",
    ):
        assert seen.outcomes[outcome] > 0, seen.outcomes
    assert len(seen.rests) >= 9
    assert all(rest.cache_bytes == 0 for rest in seen.rests)
    assert seen.growth_bytes < 16 * MIB, [rest.memory_bytes // MIB for rest in seen.rests]
    assert seen.rests[-1].threads <= max(rest.threads for rest in seen.rests[:-1]) + 4
    assert seen.rests[-1].open_files <= max(rest.open_files for rest in seen.rests[:-1]) + 8


def test_growth_is_the_last_third_over_the_middle_third():
    seen = soak.Soak([soak.Rest(0.0, 0, size, 0, 0, 0) for size in (1, 9, 5, 5, 6, 8, 7, 7, 9)])
    assert seen.growth_bytes == 7 - 6
