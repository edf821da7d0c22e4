"""The real server as a process of its own, as a person starts it, and its database from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
from sqlite_utils.utils import sqlite3

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 300.0


class RealServer:
    """``chatrlhf serve`` on a free port; ``environment`` holds settings such as CHATRLHF_PPO_*."""

    def __init__(self, data_dir: Path, *options: str, environment: dict[str, str] | None = None):
        self.data_dir = data_dir
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ui", "serve", "--port", "0", "--data", str(data_dir), *options],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._listening = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self._address()
        self.http = httpx.Client(base_url=self.url, timeout=120.0)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.append(line)
            if " is at http" in line:
                self._listening.set()
        self._listening.set()

    @property
    def log(self) -> str:
        """What it has written so far."""
        return "".join(self._lines)

    def _address(self) -> str:
        self._listening.wait(START_SECONDS)
        for line in self._lines:
            if " is at http" in line:
                return line.split(" is at ")[1].split()[0]
        raise AssertionError(f"the server does not listen:\n{self.log}")

    def wait_until_loaded(self) -> RealServer:
        """Wait for the model; fails with the server's own reason."""
        self.wait_for(lambda: self.health()["status"] != "loading", START_SECONDS)
        health = self.health()
        assert health["status"] == "ok", health["message"] + self.log
        return self

    def health(self) -> dict:
        return self.get("/api/health")

    def get(self, path: str):
        """JSON of a path; an answer that is no success fails."""
        return self._json(self.http.get(path))

    def post(self, path: str, body: dict | None = None):
        """JSON of what a POST answers; an answer that is no success fails."""
        return self._json(self.http.post(path, json={} if body is None else body))

    def ask(self, text: str, conversation: int | None = None, **more) -> dict:
        """A finished turn; in a conversation of its own unless one is named."""
        if conversation is None:
            conversation = self.post("/api/conversations")["id"]
        return self.post(f"/api/conversations/{conversation}/turns", {"text": text, **more})

    def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Rows of the database file, which is opened for reading only."""
        with self._connection("ro") as connection:
            return connection.execute(sql, values).fetchall()

    def write(self, sql: str, *values: object) -> None:
        """Change the database behind the server's back."""
        with self._connection("rw") as connection, connection:
            connection.execute(sql, values)

    def _connection(self, mode: str):
        uri = f"{(self.data_dir / 'chatrlhf.db').as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=30.0)
        connection.row_factory = sqlite3.Row
        return contextlib.closing(connection)

    def wait_for(self, condition, seconds: float = 120.0):
        """What ``condition`` returns once it is true."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self._process.poll() is None, f"the server ended:\n{self.log}"
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s; log:\n{self.log}"
            time.sleep(0.05)
        return found

    def stop(self) -> int:
        """End it in order; the exit code."""
        self.http.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _json(self, answer: httpx.Response):
        refusal = f"{answer.request.url}: {answer.status_code} {answer.text}\n{self.log}"
        assert answer.is_success, refusal
        return answer.json()
