"""A chatrlhf server of the benchmark's own: fresh data folder, free port, gone at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

START_SECONDS = 300.0


@contextmanager
def own_server(data: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """Serve ``data`` with these environment settings; yields the URL once the chat answers."""
    with own_process(data, settings) as (url, _pid):
        yield url


@contextmanager
def own_process(data: Path, settings: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """``own_server`` that also yields the id of the server's process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "ui", "serve", "--port", str(port)],
        env={**os.environ, **settings, "CHATRLHF_DATA": str(data)},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(url)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait(60)


def wait_until_ready(url: str) -> None:
    """Wait until the health endpoint says ok."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/api/health").json()["status"] == "ok":
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"the server at {url} did not become ready in {START_SECONDS:.0f} s")


def simulate(url: str, *options: str) -> None:
    """Run ``chatrlhf simulate`` against the server, in a process of its own."""
    subprocess.run([sys.executable, "-m", "ui", "simulate", "--url", url, *options], check=False)
