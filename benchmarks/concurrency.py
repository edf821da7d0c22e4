"""Several people at once: time to first token and tokens per second with 1, 4 and 16 conversations.

``make bench-concurrency`` runs the engine as the chat uses it, on the embedded Gemma 3 270M with a
LoRA version live, in a fresh process for each number of conversations: each asks for K replies of
64 new tokens, again and again, to prompts of differing lengths that nothing has cached. All begin
at once, so the first requests meet an empty engine and each other's prompts.

The time to the first token is from the request to the first text of any of its replies; tokens/s
are those of all conversations together, over the time from the first request to the last token. The
longest gap is between two texts of one request, while others' prompts are run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fresh_process import all_cores, in_fresh_process
from rich.console import Console
from rich.table import Table
from side_by_side import machine

from chatrlhf.models.catalog import ensure_local, find_source


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Numbers of one measurement: seconds to the first token, tokens a second."""
    first = sorted(one["first_seconds"] for one in found["timings"])
    return {
        "conversations": found["conversations"],
        "requests": len(first),
        "first_token_median_s": statistics.median(first),
        "first_token_95_s": first[min(len(first) - 1, round(0.95 * len(first)))],
        "longest_gap_s": max(one["longest_gap_seconds"] for one in found["timings"]),
        "tokens_per_second": found["tokens_per_second"],
    }


def show(rows: Sequence[dict[str, Any]], replies: int) -> None:
    """Print the table."""
    table = Table(title=f"{replies} replies to each request")
    for heading in (
        "conversations",
        "requests",
        "first token, median",
        "95 %",
        "longest gap",
        "tokens/s",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["conversations"]),
            str(row["requests"]),
            f"{row['first_token_median_s']:.2f} s",
            f"{row['first_token_95_s']:.2f} s",
            f"{row['longest_gap_s']:.2f} s",
            f"{row['tokens_per_second']:.0f}",
        )
    Console().print(table)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="catalog name, folder or GGUF file")
    parser.add_argument("--conversations", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=3, help="of each conversation, in turn")
    parser.add_argument("--replies", type=int, default=4, help="K")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of a reply")
    parser.add_argument("--threads", type=int, default=all_cores(), help="default: all cores")
    parser.add_argument("--quantization", default="auto", help="of the engine's model")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    found = parser.parse_args(arguments)
    numbers = [*found.conversations, found.requests, found.replies, found.tokens, found.threads]
    if min(numbers) < 1:
        parser.error("conversations, requests, replies, tokens and threads must be 1 or more")
    return found


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse(given)
    folder = ensure_local(find_source(arguments.model), lambda _text, _fraction: None)
    names = ("requests", "replies", "tokens", "threads", "quantization")
    job = {"folder": str(folder), **{name: getattr(arguments, name) for name in names}}
    runs, rows = [], []
    for conversations in arguments.conversations:
        found = in_fresh_process(
            "concurrency_run.py",
            {**job, "conversations": conversations},
            threads=arguments.threads,
            variables={"OMP_WAIT_POLICY": "PASSIVE"},
        )
        runs.append(found)
        rows.append(summary(found))
        if arguments.json:
            report = {"machine": machine(), "workload": job, "summary": rows, "runs": runs}
            arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(rows, arguments.replies)


if __name__ == "__main__":
    main()
