"""A server over the fake engine: for tests, and run as a script for those that need a process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fake_engine import FakeEngine
from fastapi.testclient import TestClient

from chatrlhf.app import App, build_app
from chatrlhf.loop.open_engine import Opened, OpenEngine
from chatrlhf.settings import Settings, load_settings
from storage import runs, versions
from ui import server
from ui.server import create_server

OWN_ADDRESS = "http://127.0.0.1:7860"


def open_fake(engine: FakeEngine) -> OpenEngine:
    """What ``open_real_engine`` does, but for the model: two versions, and the engine."""

    def open_engine(db, settings, _progress) -> Opened:
        if versions.get_alias(db, "live") is None:
            for name in ("v0", "v1"):
                versions.register_version(db, name, None, None, "", {}, "")
            versions.set_alias(db, "live", "v0")
        return Opened(engine, verify=lambda name: settings.versions_dir / name)

    return open_engine


def wait_until_loaded(app: App) -> None:
    deadline = time.monotonic() + 120.0
    while app.status == "loading":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def http_client(app: App) -> TestClient:
    return TestClient(
        create_server(app, with_page=False), base_url=OWN_ADDRESS, raise_server_exceptions=False
    )


def serve_with_trainer(settings: Settings, engine: FakeEngine) -> Iterator[TestClient]:
    """A client of a server whose trainer is paused, so that no process starts."""
    app = build_app(settings, with_trainer=True, open_engine=open_fake(engine))
    app.start()
    runs.set_state(app.db, "trainer", {"paused": True})
    wait_until_loaded(app)
    try:
        with http_client(app) as client:
            yield client
    finally:
        app.stop()


def main(data_dir: str) -> int:
    """Serve until a signal; replies stop after their first word and wait."""
    engine = FakeEngine()
    engine.go.clear()

    def build(settings: Settings, *, with_trainer: bool) -> App:
        return build_app(settings, with_trainer=with_trainer, open_engine=open_fake(engine))

    server.build_app = build
    settings = load_settings(Path(data_dir), {"serve": {"port": 0}})
    return server.run(settings, open_browser=False, with_trainer=False)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
