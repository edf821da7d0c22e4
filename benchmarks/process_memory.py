"""What a measuring process tells of itself: its memory, and versions of packages. Without torch."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def process_memory() -> dict[str, int]:
    """Resident memory of this process in bytes: now, and at most since ``forget_peak``.

    On Linux from /proc, as ``ru_maxrss`` starts with the peak of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        sizes = {"now": lines["VmRSS"], "peak": lines["VmHWM"]}
        return {name: int(size.split()[0]) * 1024 for name, size in sizes.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return {"now": peak, "peak": peak}


def forget_peak() -> None:
    """Let the peak begin again at what is resident now; where the system cannot, do nothing."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def versions_of(names: Sequence[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
