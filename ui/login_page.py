"""The page to sign in at: the only one that a stranger gets, with the few files that it needs."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse
from starlette.responses import Response
from starlette.types import Scope

from ui.board.board import ASSETS_DIR, Assets

# What a stranger may read: code and looks, nothing of anybody.
FILES = frozenset(
    {
        "api.js",
        "dom.js",
        "icon.svg",
        "kept.js",
        "login.css",
        "login.js",
        "page.css",
        "parts.css",
        "preferences.js",
        "theme.js",
        "words.js",
        *(f"languages/{path.name}" for path in (ASSETS_DIR / "languages").glob("*.js")),
    }
)
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_STYLES = "\n".join(
    f'<link rel="stylesheet" href="/login/{name}">'
    for name in ("page.css", "parts.css", "login.css")
)
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>chatrlhf</title>
<link rel="icon" href="/login/icon.svg" type="image/svg+xml">
{_STYLES}
<script type="module" src="/login/login.js"></script>
</head>
<body class="chatrlhf login">
<noscript><p>Signing in needs JavaScript. Programs send an API key instead.</p></noscript>
</body>
</html>
"""

router = APIRouter(include_in_schema=False)


@router.get("/login", response_class=HTMLResponse)
def login_page() -> HTMLResponse:
    """The page; its script shows what there is to do."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(_PAGE, headers=headers)


class _LoginAssets(Assets):
    """The files of the login page, and nothing else of their folder."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer one request."""
        if path.replace("\\", "/") not in FILES:
            return Response("There is no such file.", status_code=404)
        return await super().get_response(path, scope)


def invitation_path(secret: str) -> str:
    """Where an invitation leads; browsers send what follows the # to no server and no log."""
    return f"/login#invitation={secret}"


def mount_login(app: FastAPI) -> None:
    """Serve the login page; call it before Gradio takes the root path."""
    app.include_router(router)
    app.mount("/login", _LoginAssets(directory=ASSETS_DIR), name="login")
