"""``benchmarks/gpu.py``: each cell in a process of its own, and a cell that fails says why."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
from fresh_process import MeasurementFailed, in_fresh_process, reason_of

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


def measured(total, peak):
    phases = {"rollout": total / 2, "scoring": total / 4, "update": total / 4}
    memory = {"rss_after_loading": 1, "peak_rss_after_loading": 1, "peak_rss": 5 * peak}
    return {
        "iterations": [{**phases, "total": total, "processor": total}],
        "device": "a GPU",
        **memory,
        **{"gpu_peak_allocated": peak, "gpu_peak_reserved": 2 * peak, "micro_batch": 8},
    }


def run_main(monkeypatch, tmp_path, outcomes, *options):
    """The report and what was taken, where processes end as told: a result or an exception."""
    taken = []

    def process(script, job, **_):
        if script == "random_model.py":
            outcome = outcomes.get("random_model.py", {"folder": job["folder"]})
        else:
            form = job["workload"]["quantization"]
            taken.append((script, form))
            outcome = outcomes[script, form]
        if isinstance(outcome, Exception):
            raise outcome
        return dict(outcome)

    result = tmp_path / "result.json"
    monkeypatch.setattr(gpu, "in_fresh_process", process)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--json", str(result), *options])
    gpu.main()
    return json.loads(result.read_text()), taken


TRL, OURS_NF4, OURS_BF16 = ("ppo_trl.py", "bf16"), ("ppo_ours.py", "nf4"), ("ppo_ours.py", "bf16")
CELLS = ("--shapes", "tiny", "--cells", "ours-nf4", "ours-bf16", "trl-bf16")


def test_each_of_our_cells_is_set_beside_trl(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    outcomes = {TRL: measured(6.0, 8 * GIB), OURS_BF16: measured(3.0, 4 * GIB)}
    outcomes[OURS_NF4] = measured(4.0, 2 * GIB)
    report, _ = run_main(monkeypatch, tmp_path, outcomes, *CELLS)
    cells = report["results"]["tiny"]
    assert (cells["ours-nf4"]["speed_ratio"], cells["ours-nf4"]["memory_ratio"]) == (1.5, 0.25)
    assert (cells["ours-bf16"]["speed_ratio"], cells["ours-bf16"]["memory_ratio"]) == (2.0, 0.5)
    line = next(line for line in capsys.readouterr().out.splitlines() if "ours-nf4 " in line[8:])
    cells = [cell.strip() for cell in line.split("│")[2:-1]]
    # 16 replies of 96 tokens in 4 seconds; the micro-batch of 16 was halved on the way.
    assert cells[2:] == ["2.00 / 1.00 / 1.00", "384", "2.00", "4.00", "1.50", "0.250"]
    assert cells[1].startswith("4.00 (4.00-4.00)")


def test_a_cell_without_memory_says_so_and_the_others_are_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    outcomes = {TRL: MeasurementFailed("out of memory", "torch.OutOfMemoryError: ...")}
    outcomes |= {OURS_NF4: measured(4.0, GIB), OURS_BF16: MeasurementFailed("no result in 9 s", "")}
    report, taken = run_main(monkeypatch, tmp_path, outcomes, *CELLS)
    assert taken == [OURS_NF4, OURS_BF16, TRL]
    cells = report["results"]["tiny"]
    assert cells["trl-bf16"] == {"error": "out of memory", "written": "torch.OutOfMemoryError: ..."}
    assert cells["ours-bf16"]["error"] == "no result in 9 s"
    assert cells["ours-nf4"]["summary"]["total_seconds"]["median"] == 4.0
    assert "speed_ratio" not in cells["ours-nf4"]
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert any("trl-bf16" in row and "out of memory" in row for row in rows)


def test_without_trl_its_cell_is_left_out_and_that_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    outcomes = {OURS_NF4: measured(4.0, GIB), OURS_BF16: measured(4.0, GIB)}
    report, _ = run_main(monkeypatch, tmp_path, outcomes, *CELLS)
    assert set(report["results"]["tiny"]) == {"ours-nf4", "ours-bf16"}
    assert "TRL is not installed" in report["left_out"]
    assert "TRL is not installed" in capsys.readouterr().out


def test_a_model_that_cannot_be_written_fails_the_cells_of_its_shape(monkeypatch, tmp_path):
    outcomes = {"random_model.py": MeasurementFailed("No space left on device", "")}
    report, taken = run_main(monkeypatch, tmp_path, outcomes, "--shapes", "tiny", "8b")
    reasons = {one["error"] for cells in report["results"].values() for one in cells.values()}
    assert reasons == {"the model could not be written: No space left on device"}
    assert set(report["results"]) == {"tiny", "8b"}
    assert taken == []


@pytest.mark.parametrize(
    ("code", "written", "reason"),
    [
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out of memory"),
        (1, "chatrlhf.errors.RoundError: Memory ran out, with a single reply", "out of memory"),
        (-9, "", "killed, as systems do when memory runs out"),
        (1, "Traceback\nValueError: no such shape\n", "no such shape"),
        (1, "ValueError: no such shape\nsome warning", "no such shape"),
        (1, "the engine has no such version", "the engine has no such version"),
        (3, "", "exit code 3"),
    ],
)
def test_the_reason_of_a_failure_is_a_line(code, written, reason):
    assert reason_of(code, written) == reason


def test_a_process_that_hangs_or_fails_is_ended_with_its_reason(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import time; time.sleep(60)")
    with pytest.raises(MeasurementFailed, match=r"no result in 0\.5 s"):
        in_fresh_process(str(script), {}, threads=1, timeout_seconds=0.5)
    script.write_text("raise ValueError('the job is wrong')")
    with pytest.raises(MeasurementFailed) as failure:
        in_fresh_process(str(script), {}, threads=1)
    assert failure.value.reason == "the job is wrong"
    assert "Traceback" in failure.value.written


@pytest.mark.slow
def test_a_tiny_model_is_measured_on_the_processor(tmp_path):
    pytest.importorskip("trl", reason="TRL is not installed; pip install '.[dev]' installs it")
    result = tmp_path / "result.json"
    cells = ["ours-nf4-checkpointing", "ours-nf4-adam8bit", "ours-bf16", "trl-bf16"]
    cells += ["engine-bf16", "generate-bf16"]
    options = {"batch": 4, "micro-batch": 2, "prompt-tokens": 8, "tokens": 6, "epochs": 2}
    options |= {"repeats": 1, "threads": 1, "device": "cpu", "json": result}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--shapes", "tiny"]
    command += ["--cells", *cells]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, timeout=300)

    found = json.loads(result.read_text())["results"]["tiny"]
    assert list(found) == cells
    # 8-bit moments need a GPU: that cell fails, and those after it are measured.
    assert "adam8bit needs a CUDA device" in found["ours-nf4-adam8bit"]["error"]
    ours, theirs = found["ours-bf16"], found["trl-bf16"]
    for run in (ours, theirs, found["ours-nf4-checkpointing"]):
        (iteration,) = run["iterations"]
        phases = [iteration[name] for name in ("rollout", "scoring", "update")]
        assert min(phases) > 0
        assert sum(phases) == pytest.approx(iteration["total"], rel=0.1)
        assert run["device"] == "cpu"
        assert not run["halved"]

    def seconds(run):
        return statistics.median(iteration["total"] for iteration in run["iterations"])

    assert ours["speed_ratio"] == pytest.approx(seconds(theirs) / seconds(ours))
    assert ours["memory_ratio"] == pytest.approx(ours["peak_rss"] / theirs["peak_rss"])
    assert ours["trainable_parameters"]["policy"] == theirs["trainable_parameters"]["policy"]
    for name in ("engine-bf16", "generate-bf16"):
        for one in found[name]["replies"].values():
            assert len(one["tokens_per_second"]) == 1
            assert one["tokens_per_second"][0] > 0
    assert len(found["engine-bf16"]["replies"]["k4"]["first_seconds"]) == 1
