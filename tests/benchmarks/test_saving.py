"""The benchmark of saving measures what it says, here with few rankings."""

from __future__ import annotations

import json
import sys

import pytest
import saving


def test_percentiles_are_of_the_nearest_rank():
    assert saving.spread([float(n) for n in range(1, 101)]) == {
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
        "max": 100.0,
    }
    assert saving.spread([3.0])["p50"] == 3.0


def test_a_small_run_fills_ranks_and_reports(tmp_path, monkeypatch, capsys):
    out = tmp_path / "saving.json"
    arguments = ["saving.py", "--rankings", "5", "--stored", "0", "40", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(saving, "TARGET_MS", 60_000.0)
    with pytest.raises(SystemExit) as ended:
        saving.main()
    assert not ended.value.code
    empty, full = json.loads(out.read_text())["results"]
    assert (empty["stored"], full["stored"], full["rankings"]) == (0, 40, 5)
    # The server's own part is no longer than what its client waits for.
    assert 0 < full["server_ms"]["p50"] <= full["answer_ms"]["p50"]
    assert full["lists"][0]["query"] == "no filter"
    assert "| 40 |" in capsys.readouterr().out
