"""How much slower the chat is while a round trains.

``make bench-slowdown`` starts a server with a fresh data folder, has a simulated rater rank 20
turns, measures the idle chat, starts a round and measures until it ends. Nothing else talks to the
server meanwhile. A line per stage of the round: time to the first token and tokens per second of
four replies, as median and range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import httpx
from own_server import own_server, simulate
from rich.console import Console
from rich.table import Table

PROMPT = "Tell me something about rivers."
REPLIES = 4
MAX_TOKENS = 48
PAUSE_SECONDS = 3.0


def probe(client: httpx.Client, seed: int) -> tuple[float, float]:
    """Ask for four replies; returns (seconds to the first token, tokens per second after it)."""
    body = {
        "model": "v0",
        "messages": [{"role": "user", "content": PROMPT}],
        **{"n": REPLIES, "max_tokens": MAX_TOKENS, "seed": seed, "stream": True},
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    first, tokens = None, 0
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[len("data: ") :])
            if first is None and any(c["delta"].get("content") for c in event["choices"]):
                first = time.perf_counter()
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    ended = time.perf_counter()
    assert first is not None, "no text came"
    return first - started, tokens / (ended - first)


def measure(rankings: int, idle: int, most: int) -> dict[str, list[tuple[float, float]]]:
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as folder,
        own_server(Path(folder), {"CHATRLHF_ROUND_AUTOMATIC": "false"}) as url,
        httpx.Client(base_url=url, timeout=300) as client,
    ):
        simulate(
            *(url, "--rater", "shorter", "--rankings", str(rankings)),
            *("--rounds", "none", "--eval-prompts", "0"),
        )
        probe(client, 0)
        for number in range(idle):
            seen["idle"].append(probe(client, number))
        client.post("/api/rounds", json={}).raise_for_status()
        for number in range(most):
            trainer = client.get("/api/health").json()["trainer"]
            if trainer["state"] not in ("queued", "running"):
                break
            seen[trainer["stage"] or "starting"].append(probe(client, number))
            time.sleep(PAUSE_SECONDS)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rankings", type=int, default=20)
    parser.add_argument("--idle", type=int, default=10, help="measurements of the idle chat")
    parser.add_argument("--most", type=int, default=200, help="measurements while training")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    arguments = parser.parse_args()
    seen = measure(arguments.rankings, arguments.idle, arguments.most)
    if arguments.json:
        arguments.json.write_text(json.dumps(seen, indent=2) + "\n")
    table = Table(title=f"{REPLIES} replies of at most {MAX_TOKENS} tokens")
    for column in ("stage", "measurements", "first token (s)", "tokens/s", "of idle"):
        table.add_column(column)
    idle = statistics.median(speed for _, speed in seen["idle"])
    for stage, values in seen.items():
        firsts, speeds = zip(*values, strict=True)
        median = statistics.median(speeds)
        table.add_row(
            *(stage, str(len(values))),
            f"{statistics.median(firsts):.2f} ({min(firsts):.2f}-{max(firsts):.2f})",
            f"{median:.1f} ({min(speeds):.1f}-{max(speeds):.1f})",
            f"{median / idle:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
