from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chatrlhf.loop.trainer_process import (
    TrainerProcess,
    last_line,
    settings_environment,
    trainer_command,
)
from chatrlhf.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]


def start(tmp_path: Path, code: str) -> TrainerProcess:
    return TrainerProcess([sys.executable, "-c", code], tmp_path / "trainer.log", {})


def wait_for(process: TrainerProcess) -> int:
    deadline = time.monotonic() + 20
    while (code := process.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return code


def test_the_command_names_the_run_the_folder_and_the_parent(tmp_path: Path) -> None:
    command = trainer_command(load_settings(tmp_path, environment={}), 7)
    assert command == [
        sys.executable,
        *["-m", "ui", "train", "--run", "7", "--data", str(tmp_path)],
        *["--nice", "10", "--parent", str(os.getpid())],
    ]


def test_the_environment_gives_the_trainer_the_same_settings(tmp_path: Path) -> None:
    overrides = {
        "model": {"name": "other", "quantization": "fp32"},
        "round": {"automatic": False, "refit_every": 7},
        "ppo": {"learning_rate": 1e-7},
    }
    settings = load_settings(tmp_path, overrides, environment={})
    again = load_settings(tmp_path, environment=settings_environment(settings))
    assert again == settings


def test_the_reason_names_the_signal_and_the_last_line(tmp_path: Path) -> None:
    for number, words in [
        (signal.SIGKILL, "killed by signal 9 (often: out of memory); its last line: step 3"),
        (signal.SIGSEGV, "killed by signal 11 (SIGSEGV); its last line: step 3"),
    ]:
        code = f"import os; print('step 3', flush=True); os.kill(os.getpid(), {int(number)})"
        process = start(tmp_path, code)
        wait_for(process)
        assert process.reason() == f"the trainer was {words}"


def test_the_reason_names_the_exit_code(tmp_path: Path) -> None:
    process = start(tmp_path, "raise SystemExit(5)")
    wait_for(process)
    assert process.reason() == "the trainer ended with exit code 5"


def test_the_exit_code_of_a_container_out_of_memory_is_known(tmp_path: Path) -> None:
    process = start(tmp_path, "raise SystemExit(137)")
    wait_for(process)
    assert "out of memory" in process.reason()


def test_a_process_that_ignores_term_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(60)"
    )
    process = start(tmp_path, code)
    while last_line(process.log_path) != "ready":
        time.sleep(0.02)
    assert process.stop(grace_seconds=0.2) == -signal.SIGKILL


def test_a_process_that_obeys_term_is_not_killed(tmp_path: Path) -> None:
    assert start(tmp_path, "import time; time.sleep(60)").stop(10) == -signal.SIGTERM


def test_logs_of_earlier_attempts_are_kept(tmp_path: Path) -> None:
    for attempt in range(3):
        wait_for(start(tmp_path, f"print('attempt {attempt}')"))
    names = ["trainer.1.log", "trainer.2.log", "trainer.log"]
    assert [last_line(tmp_path / name) for name in names] == ["attempt 0", "attempt 1", "attempt 2"]


def test_the_last_line_skips_blanks_cuts_and_survives_bytes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_bytes(b"first\n" + b"x" * 50_000 + b"\nlast \xff" + b"y" * 500 + b"\n\n  \n")
    line = last_line(log)
    assert line.startswith("last ")
    assert len(line) == 300


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    # A parent that starts a watching child, and is then killed without a chance to clean up.
    child = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); "
        "from chatrlhf.loop.trainer_process import end_with_parent; "
        "end_with_parent(int(sys.argv[1]), 0.05); print('watching', flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], "
        "start_new_session=True).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"watching\n"
        running.kill()
        # The child holds the other end of the pipe: end of file comes when it is gone.
        began = time.monotonic()
        assert running.stdout.read() == b""
        assert time.monotonic() - began < 20


def test_a_parent_that_is_gone_already_ends_the_child_at_once() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = (
        "import sys, time; from chatrlhf.loop.trainer_process import end_with_parent; "
        "end_with_parent(int(sys.argv[1])); time.sleep(60)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(gone.pid)], cwd=ROOT, timeout=30, check=False
    )
    assert ended.returncode == 143


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_a_process_that_gets_no_core_says_so(tmp_path: Path) -> None:
    """Two busy loops share one core; a third process only sleeps."""
    core = min(os.sched_getaffinity(0))
    busy = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    rivals = [start(tmp_path / name, busy) for name in ("one", "two")]
    asleep = start(tmp_path / "three", "import time; time.sleep(60)")
    try:
        deadline = time.monotonic() + 20
        while min(rival.starved_seconds() for rival in rivals) < 1.0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before, started = asleep.starved_seconds(), time.monotonic()
        time.sleep(0.5)
        assert asleep.starved_seconds() - before < 0.5 * (time.monotonic() - started)
    finally:
        for process in (*rivals, asleep):
            process.stop(0.0)
    assert asleep.starved_seconds() == 0.0  # gone
