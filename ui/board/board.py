"""Where the page's scripts and styles live, and how the server hands them out.

Gradio lays out empty columns; the ES modules beside this file fill them and talk to ``/api``. No
``gr.HTML`` is used: it compiles its templates with ``Function``, which would force the content
security policy to allow ``unsafe-eval`` on a page that shows hostile text.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ASSETS_DIR = Path(__file__).parent
ASSETS_PATH = "/board"

HEADER_ID = "chatrlhf-header"
CHAT_ID = "chatrlhf-chat"
QUEUE_ID = "chatrlhf-queue"
RATINGS_ID = "chatrlhf-ratings"
TRAINING_ID = "chatrlhf-training"
EVIDENCE_ID = "chatrlhf-evidence"
PEOPLE_ID = "chatrlhf-people"

STYLESHEETS = (
    "page.css",
    "parts.css",
    "sidebar.css",
    "chat.css",
    "board.css",
    "ratings.css",
    "ratings_files.css",
    "cards.css",
    "markdown.css",
    "settings.css",
    "queue.css",
    "pool.css",
    "training.css",
    "tables.css",
    "charts.css",
    "evidence.css",
    "compared.css",
    "people.css",
)
ENTRY_MODULE = "page.js"

MANIFEST = "chatrlhf.webmanifest"
MANIFEST_PATH = "/manifest.json"
# Types that the standard library does not know everywhere.
MEDIA_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}


class Assets(StaticFiles):
    """The page's files, revalidated on each load, and nothing else of the folder."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer one request; a browser may keep the file but must ask whether it changed."""
        media_type = MEDIA_TYPES.get(Path(path).suffix)
        if media_type is None:
            return Response("There is no such file.", status_code=404)
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Content-Type"] = media_type
        response.headers["Cache-Control"] = "no-cache"
        return response


def mount_assets(app: FastAPI) -> None:
    """Serve the page's files below ``/board``; call it before Gradio takes the root path."""
    app.mount(ASSETS_PATH, Assets(directory=ASSETS_DIR), name="board")
    app.add_api_route(MANIFEST_PATH, _manifest, include_in_schema=False)


def _manifest() -> FileResponse:
    """What a browser needs to install the page; Gradio's page names this address."""
    return FileResponse(ASSETS_DIR / MANIFEST, media_type=MEDIA_TYPES[".webmanifest"])


def head_html() -> str:
    """The tags that load the page's own styles and scripts, and let it be installed as an app."""
    icons = [
        f'<link rel="icon" href="{ASSETS_PATH}/icon.svg" type="image/svg+xml">',
        f'<link rel="apple-touch-icon" href="{ASSETS_PATH}/icon-192.png">',
        '<meta name="theme-color" content="#faf9f7" media="(prefers-color-scheme: light)">',
        '<meta name="theme-color" content="#141517" media="(prefers-color-scheme: dark)">',
    ]
    styles = [f'<link rel="stylesheet" href="{ASSETS_PATH}/{name}">' for name in STYLESHEETS]
    script = f'<script type="module" src="{ASSETS_PATH}/{ENTRY_MODULE}"></script>'
    return "\n".join([*icons, *styles, script])
