"""The page over an app, or over an engine that says what a test wrote, in the test's process."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import httpx
from fake_engine import FakeEngine, FakeStream
from fake_server import open_fake, wait_until_loaded
from listening import Listening
from waiting import wait_for

from chatrlhf.app import App, build_app
from chatrlhf.engine.requests import Completed, Delta, Finished, ReplyRequest, Started
from chatrlhf.settings import Settings
from ui.server import create_server

PIECE = 7


class ScriptedEngine(FakeEngine):
    """Says ``texts[row]`` in small pieces; without texts, "reply <row>"."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def _speak(self, request: ReplyRequest, stream: FakeStream) -> None:
        put = stream.events.put
        versions = request.versions or (str(self.live),) * request.replies
        put(Started(versions=versions, prompt_tokens=7))
        said = [self.texts[row % len(self.texts)] if self.texts else f"reply {row}"
                for row in range(request.replies)]  # fmt: skip
        for row, text in enumerate(said):
            put(Delta(row, text[:PIECE]))
        self.go.wait(30)
        for row, text in enumerate(said):
            cut = self._is_cut(stream, row)
            said[row] = text[:PIECE] if cut else text
            for at in range(PIECE, len(said[row]), PIECE):
                put(Delta(row, text[at : at + PIECE]))
            reason = "cancelled" if cut else "stop"
            put(Finished(row, said[row], (1, 2), (-0.5, -0.5), reason, versions[row], request.seed))
        put(Completed())


class AppServer:
    """``url``, ``app`` (its rows), and the API by ``get`` and ``post``. It stops the app too."""

    def __init__(self, app: App) -> None:
        self.app = app
        app.start()
        wait_until_loaded(app)
        self._listening = Listening(create_server(app))
        self.url = self._listening.url
        self.http = httpx.Client(base_url=self.url, timeout=60.0)

    @property
    def data_dir(self) -> Path:
        return self.app.settings.data_dir

    def health(self) -> dict:
        return self.get("/api/health")

    def get(self, path: str, **parameters: Any) -> Any:
        return self._json(self.http.get(path, params=parameters))

    def post(self, path: str, body: dict | None = None) -> Any:
        return self._json(self.http.post(path, json=body or {}))

    def ask(self, text: str = "Hello", conversation: int | None = None, **more: Any) -> dict:
        """A finished turn, in a conversation of its own unless one is named."""
        if conversation is None:
            conversation = self.post("/api/conversations")["id"]
        return self.post(f"/api/conversations/{conversation}/turns", {"text": text, **more})

    def rows(self, sql: str, *values: object) -> list[dict]:
        return self.app.db.rows(sql, list(values))

    def change(self, **chat: Any) -> None:
        """Other settings of the chat, from now on."""
        settings = self.app.settings
        self.app.settings = dataclasses.replace(
            settings, chat=dataclasses.replace(settings.chat, **chat)
        )

    def wait_for(self, condition, seconds: float = 120.0) -> None:
        wait_for(condition, seconds, 0.05)

    def stop(self) -> None:
        self.http.close()
        self.app.end_streams()
        self._listening.stop()
        self.app.stop()

    def _json(self, answer: httpx.Response) -> Any:
        assert answer.is_success, f"{answer.request.url}: {answer.status_code} {answer.text}"
        return answer.json()


class PageServer(AppServer):
    """Over an ``engine`` of its own."""

    def __init__(self, settings: Settings) -> None:
        self.engine = ScriptedEngine()
        opened = open_fake(self.engine)
        super().__init__(build_app(settings, with_trainer=False, open_engine=opened))
