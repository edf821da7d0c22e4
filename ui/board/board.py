"""Where the page's scripts and styles live, and how the server hands them out.

Gradio lays out empty columns; the ES modules beside this file fill them and talk to ``/api``. No
``gr.HTML`` is used: it compiles its templates with ``Function``, which would force the content
security policy to allow ``unsafe-eval`` on a page that shows hostile text.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ASSETS_DIR = Path(__file__).parent
ASSETS_PATH = "/board"

HEADER_ID = "chatrlhf-header"
CHAT_ID = "chatrlhf-chat"
TRAINING_ID = "chatrlhf-training"

STYLESHEETS = (
    "page.css",
    "parts.css",
    "sidebar.css",
    "chat.css",
    "board.css",
    "training.css",
    "tables.css",
    "charts.css",
)
ENTRY_MODULE = "page.js"
SERVED_SUFFIXES = frozenset({".js", ".css"})

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E"
    "%3Crect width='32' height='32' rx='8' fill='%230f6b5c'/%3E%3Cg fill='white'%3E"
    "%3Crect x='7' y='7' width='18' height='4' rx='2'/%3E"
    "%3Crect x='7' y='14' width='12' height='4' rx='2' opacity='.75'/%3E"
    "%3Crect x='7' y='21' width='7' height='4' rx='2' opacity='.5'/%3E%3C/g%3E%3C/svg%3E"
)


class Assets(StaticFiles):
    """The page's scripts and styles, revalidated on each load, and nothing else of the folder."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer one request; a browser may keep the file but must ask whether it changed."""
        if Path(path).suffix not in SERVED_SUFFIXES:
            return Response("There is no such file.", status_code=404)
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def mount_assets(app: FastAPI) -> None:
    """Serve the page's files below ``/board``; call it before Gradio takes the root path."""
    app.mount(ASSETS_PATH, Assets(directory=ASSETS_DIR), name="board")


def head_html() -> str:
    """The tags that load the page's own styles and scripts."""
    styles = [f'<link rel="stylesheet" href="{ASSETS_PATH}/{name}">' for name in STYLESHEETS]
    script = f'<script type="module" src="{ASSETS_PATH}/{ENTRY_MODULE}"></script>'
    return "\n".join([f'<link rel="icon" href="{ICON}">', *styles, script])
