"""``benchmarks/ppo_vs_trl.py`` runs both sides, and its ratios are those of its measurements."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

pytest.importorskip("trl", reason="TRL is not installed; pip install '.[dev]' installs it")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_both_sides_are_measured_side_by_side(tmp_path):
    model = write_tiny_model(tmp_path / "gemma", "gemma3", hidden=32)
    result = tmp_path / "result.json"
    options = {"model": model, "json": result, "batch": 4, "micro-batch": 2, "repeats": 1}
    options |= {"response-tokens": 6, "epochs": 2, "warmup": 0, "iterations": 2, "threads": 1}
    command = [sys.executable, str(ROOT / "benchmarks" / "ppo_vs_trl.py")]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, timeout=300)

    report = json.loads(result.read_text())
    (ours,), (theirs,) = report["ours"]["runs"], report["trl"]["runs"]
    for run in (ours, theirs):
        assert len(run["iterations"]) == 2
        for iteration in run["iterations"]:
            phases = [iteration[name] for name in ("rollout", "scoring", "update")]
            assert min(phases) > 0
            assert sum(phases) == pytest.approx(iteration["total"], rel=0.1)
        assert 0 < run["rss_after_loading"] <= run["peak_rss_after_loading"] <= run["peak_rss"]

    def seconds(run):
        return statistics.median(iteration["total"] for iteration in run["iterations"])

    assert report["speed_ratio"] == pytest.approx(seconds(theirs) / seconds(ours))
    assert report["memory_ratio"] == pytest.approx(ours["peak_rss"] / theirs["peak_rss"])
    # The tiny model's value model is trained in full by TRL, as an adapter by us.
    assert ours["trainable_parameters"]["policy"] == theirs["trainable_parameters"]["policy"]
    assert ours["trainable_parameters"]["value"] < theirs["trainable_parameters"]["value"]
