"""Measurements in fresh processes, so that time and peak memory of each are its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent
_ERROR_NAME = re.compile(r"^[\w.]+Error: ")
_OUT_OF_MEMORY = ("out of memory", "memory ran out")


class MeasurementFailed(Exception):
    """A measuring process gave no result: ``reason`` in a line, and all that it wrote."""

    def __init__(self, reason: str, written: str) -> None:
        super().__init__(f"{reason}\n{written}".strip())
        self.reason = reason
        self.written = written


def in_fresh_process(
    script: str,
    job: Mapping[str, Any],
    *,
    threads: int,
    timeout_seconds: float | None = None,
    variables: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """What a script of this folder answers to a job; its body is ``answer``.

    ``variables`` are added to its environment, or taken out of it where they are None.

    Raises:
        MeasurementFailed: it ended with an error, was killed, or gave no result in time.
    """
    asked: dict[str, str | None] = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **(variables or {}),
    }
    environment = {name: value for name, value in asked.items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        job_file, result = Path(folder) / "job.json", Path(folder) / "result.json"
        job_file.write_text(json.dumps(job))
        try:
            done = subprocess.run(
                [sys.executable, str(_FOLDER / script), str(job_file), str(result)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=timeout_seconds,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementFailed(f"no result in {timeout_seconds:g} s", "") from error
        if done.returncode:
            raise MeasurementFailed(reason_of(done.returncode, done.stderr), done.stderr)
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def reason_of(returncode: int, written: str) -> str:
    """Why a process failed, in a line."""
    if any(sign in written.lower() for sign in _OUT_OF_MEMORY):
        return "out of memory"
    if returncode == -signal.SIGKILL:
        return "killed, as systems do when memory runs out"
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    # Libraries may write warnings after the error, on their way out.
    errors = [line for line in lines if _ERROR_NAME.match(line)]
    last = (errors or lines or [f"exit code {returncode}"])[-1]
    return _ERROR_NAME.sub("", last)


def answer(work: Callable[[dict[str, Any]], Any]) -> None:
    """Body of a measuring process: argv is the job file and the file for the result."""
    job, result = Path(sys.argv[1]), Path(sys.argv[2])
    result.write_text(json.dumps(work(json.loads(job.read_text()))))


def all_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
