"""The trainer as a child process: start, stop, and say in words why it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from chatrlhf.settings import Settings

BuildCommand = Callable[[Settings, int], Sequence[str]]

_NICE = 10
if sys.platform == "win32":
    _NEW_GROUP = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    _NEW_GROUP = 0
_LOG_NAME = "trainer.log"


def trainer_command(settings: Settings, run_id: int) -> list[str]:
    """The command line that executes round ``run_id`` and ends with its parent."""
    options = {
        "--run": run_id,
        "--data": settings.data_dir,
        "--nice": _NICE,
        "--parent": os.getpid(),
    }
    command = [sys.executable, "-m", "ui", "train"]
    for name, value in options.items():
        command += [name, str(value)]
    return command


def settings_environment(settings: Settings) -> dict[str, str]:
    """All settings as environment variables, so that the trainer has exactly its parent's."""
    variables = {}
    for group in dataclasses.fields(settings):
        values = getattr(settings, group.name)
        if dataclasses.is_dataclass(values):
            for field in dataclasses.fields(values):
                name = f"CHATRLHF_{group.name}_{field.name}".upper()
                value = getattr(values, field.name)
                variables[name] = _as_text(value)
    return variables


def _as_text(value: object) -> str:
    """A setting as the environment holds it."""
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


class TrainerProcess:
    """One attempt at a round, in a process group of its own, with its output in a log."""

    def __init__(
        self, command: Sequence[str], log_path: Path, environment: Mapping[str, str]
    ) -> None:
        self.log_path = log_path
        _rotate(log_path)
        # A group of its own: Ctrl-C in the terminal reaches the server, which stops the
        # trainer in order.
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                creationflags=_NEW_GROUP,
            )

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def starved_seconds(self) -> float:
        """How long it has wanted a core and got none, as far as the system tells."""
        return seconds_without_core(self.pid)

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self, grace_seconds: float) -> int:
        """Ask it to end, kill it after ``grace_seconds``; returns the exit code."""
        if self.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        return self._process.wait()

    def reason(self) -> str:
        """Why it ended, in words, with the last line that it wrote."""
        code = self.poll()
        if code is None:
            return "the trainer still runs"
        words = f"the trainer ended with exit code {code}"
        # 128 + 9 is how a shell or a container reports the same signal.
        if code in (-9, 137):
            words = "the trainer was killed by signal 9 (often: out of memory)"
        elif code < 0:
            words = f"the trainer was killed by signal {-code} ({_signal_name(-code)})"
        line = last_line(self.log_path)
        return f"{words}; its last line: {line}" if line else words

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._process.terminate()
            else:
                os.killpg(self._process.pid, number)


def last_line(path: Path, limit: int = 300) -> str:
    """The last line of a log that is not blank, cut to ``limit`` characters; empty if none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16_384))
            lines = log.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:limit] for line in reversed(lines) if line.strip()), "")


def seconds_without_core(pid: int) -> float:
    """Seconds for which the most delayed thread of a process was ready but not run; 0 if unknown.

    Linux only: the second field of ``schedstat``, in nanoseconds (Linux,
    Documentation/scheduler/sched-stats.rst).
    """
    delays = [0]
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            delays.append(int(path.read_text(encoding="ascii").split()[1]))
    return max(delays) / 1e9


def be_nice(level: int) -> None:
    """Lower the priority of this process, so that the chat stays quick.

    Linux with autogroups weighs sessions against each other and a nice value only inside one;
    the trainer has a session of its own, so its group is made nice too.
    """
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            os.nice(level)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(level), encoding="ascii")


def end_with_parent(parent_pid: int, poll_seconds: float = 1.0) -> None:
    """Watch the parent from a thread and end this process at once when it is gone.

    Nothing is lost but the work since the newest checkpoint: publishing is atomic.
    """
    threading.Thread(
        target=_watch_parent, args=(parent_pid, poll_seconds), name="parent-watch", daemon=True
    ).start()


def _watch_parent(parent_pid: int, poll_seconds: float) -> None:
    try:
        parent = psutil.Process(parent_pid)
        # is_running compares start times too, so a pid that was used again does not count.
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(poll_seconds)
    except psutil.NoSuchProcess:
        pass
    os._exit(143)


def _rotate(log_path: Path) -> None:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists():
        older = len(list(log_path.parent.glob("trainer.*.log")))
        log_path.replace(log_path.with_name(f"trainer.{older + 1}.log"))


def trainer_log(settings: Settings, run_id: int) -> Path:
    """Where the newest attempt of round ``run_id`` writes."""
    return settings.runs_dir / str(run_id) / _LOG_NAME


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
