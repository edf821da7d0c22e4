"""A model hub on localhost: enough of the Hugging Face protocol for ``snapshot_download``."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """``files`` of each hub id; ``gated`` ids answer 403; ``requests`` are the paths asked for."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serve a ``FakeHub`` on a free port."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.split("?")[0]
            hub.requests.append(path)
            status, headers, body = _response(hub, path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _response(hub: FakeHub, path: str) -> tuple[int, dict[str, str], bytes]:
    parts = path.strip("/").split("/")
    hub_id = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
    files = hub.files.get(hub_id)
    if files is None:
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
    if parts[0] == "api" and "tree" in parts:
        return 200, {"Content-Type": "application/json"}, json.dumps(_tree(files)).encode()
    if parts[0] == "api":
        info = {"id": hub_id, "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
    name = "/".join(parts[4:])
    if hub_id in hub.gated:
        return 403, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": COMMIT}, b""
    if name not in files:
        return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
    etag = hashlib.sha256(files[name]).hexdigest()
    return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, files[name]


def _tree(files: dict[str, bytes]) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
        for n, b in files.items()
    ]
