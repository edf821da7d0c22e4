"""The whole loop, as a person would use it: chat, rank, train, swap, measure.

``make bench-loop`` (or ``python benchmarks/loop.py --rater shorter --seeds 0 1``) starts a server
with a fresh data folder for each rater and seed, runs ``chatrlhf simulate`` against it, measures
how much slower the chat is while a round trains, and prints one table. Nothing is averaged away:
every seed is a line, whether it won or not.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

PROBE_PROMPT = "Tell me something about rivers."
PROBE_SECONDS = 20.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Probe(threading.Thread):
    """Asks for one short reply again and again; notes its speed and whether a round trained."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.client = httpx.Client(base_url=url, timeout=120)
        self.stopped = threading.Event()
        self.speeds: dict[str, list[float]] = {"idle": [], "training": []}

    def run(self) -> None:
        """Probe until ``stopped`` is set."""
        while not self.stopped.wait(PROBE_SECONDS):
            state = self.client.get("/api/health").json()["trainer"]["state"]
            started = time.perf_counter()
            answer = self.client.post(
                "/v1/chat/completions",
                json={
                    "model": "v0",
                    "messages": [{"role": "user", "content": PROBE_PROMPT}],
                    "max_tokens": 32,
                    "n": 4,
                    "seed": 1,
                },
            )
            answer.raise_for_status()
            tokens = answer.json()["usage"]["completion_tokens"]
            kind = "training" if state == "running" else "idle"
            self.speeds[kind].append(tokens / (time.perf_counter() - started))


def run(rater: str, seed: int, rankings: int, folder: Path) -> dict[str, Any]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    data = folder / f"{rater.replace(':', '-')}-{seed}"
    environment = {**os.environ, "CHATRLHF_DATA": str(data), "CHATRLHF_ROUND_SEED": str(seed)}
    server = subprocess.Popen(
        [sys.executable, "-m", "ui", "serve", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(url)
        probe = Probe(url)
        report = folder / f"{rater.replace(':', '-')}-{seed}.json"
        started = time.perf_counter()
        probe.start()
        subprocess.run(
            [
                *(sys.executable, "-m", "ui", "simulate", "--url", url),
                *("--rater", rater, "--rankings", str(rankings)),
                *("--seed", str(seed), "--json", str(report)),
            ],
            check=False,
        )
        seconds = time.perf_counter() - started
        probe.stopped.set()
        result: dict[str, Any] = json.loads(report.read_text())
        result["seconds"] = seconds
        result["rounds"] = httpx.get(f"{url}/api/rounds").json()
        result["tokens_per_second"] = {
            kind: statistics.median(values) if values else None
            for kind, values in probe.speeds.items()
        }
        return result
    finally:
        server.terminate()
        server.wait(60)


def wait_until_ready(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{url}/api/health").json()["status"] == "ok":
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the server at {url} did not become ready in five minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rater", nargs="+", default=["shorter", "positive"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--rankings", type=int, default=48)
    parser.add_argument("--json", type=Path, help="write all reports to this file")
    parser.add_argument("--keep", type=Path, help="put the data folders here and keep them")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for rater in arguments.rater:
            for seed in arguments.seeds:
                where = arguments.keep or Path(folder)
                results.append(run(rater, seed, arguments.rankings, where))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps([{k: r[k] for k in ("seconds", "tokens_per_second")} for r in results]))


if __name__ == "__main__":
    main()
