"""The table of ``gpu.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import Any

from ppo_workload import PHASES
from rich.table import Table
from rich.text import Text
from side_by_side import GIB, peak, spread

COLUMNS = (
    "shape",
    "measurement",
    "iteration or first text, s",
    " / ".join(PHASES),
    "tokens/s",
    "peak GiB",
    "reserved",
    "TRL's s / ours",
    "our peak / TRL's",
)
# Never broken into lines; the seconds are, where they hold the reason of a failure.
_WHOLE = ("measurement", " / ".join(PHASES), "tokens/s")
_SECONDS_WIDTH = 21
_REASON_WIDTH = 80


def table_of(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """A line for each measurement of each shape; replies have one for each number of them."""
    table = Table(title="medians (least-most)")
    for column in COLUMNS:
        width = _SECONDS_WIDTH if column.endswith(", s") else None
        table.add_column(column, no_wrap=column in _WHOLE, min_width=width)
    for shape, cells in results.items():
        for name, found in cells.items():
            for line in lines_of(name, found):
                table.add_row(shape, *(Text(cell) for cell in line))
        table.add_section()
    return table


def lines_of(name: str, found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Lines of one measurement, without the shape."""
    if "error" in found:
        return [(name, shorten(found["error"], _REASON_WIDTH, placeholder=" ..."))]
    reserved = found["gpu_peak_reserved"]
    memory = (f"{peak(found) / GIB:.2f}", f"{reserved / GIB:.2f}" if reserved else "")
    if "summary" in found:
        return [(name, *iteration(found), *memory, *beside_trl(found))]
    return [
        (
            f"{name}, {replies[1:]} replies" if replies != "k1" else f"{name}, 1 reply",
            in_words(one["first_seconds"], 3),
            "",
            in_words(one["tokens_per_second"], 1),
            *memory,
        )
        for replies, one in found["replies"].items()
    ]


def iteration(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Seconds, seconds of the phases, and response tokens a second."""
    numbers = found["summary"]
    seconds = in_words((one["total"] for one in found["iterations"]), 2)
    if found["halved"]:
        seconds += f", {found['micro_batch']} rows at once"
    phases = " / ".join(f"{numbers[f'{phase}_seconds']['median']:.2f}" for phase in PHASES)
    return seconds, phases, f"{numbers['response_tokens_per_second']['median']:.0f}"


def beside_trl(found: Mapping[str, Any]) -> tuple[str, ...]:
    """The ratios, where there are some."""
    if "speed_ratio" not in found:
        return ()
    return f"{found['speed_ratio']:.2f}", f"{found['memory_ratio']:.3f}"


def in_words(values: Iterable[float], digits: int) -> str:
    """``median (least-most)``; nothing for no values."""
    numbers = list(values)
    if not numbers:
        return ""
    one = spread(numbers)
    least, most = one["least"], one["most"]
    return f"{one['median']:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"
