"""What every route gets: the app, and ids that a row can have."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from chatrlhf.app import App
from ui.bodies import LARGEST_ID


def _app_of(request: Request) -> App:
    app: App = request.app.state.chatrlhf
    return app


TheApp = Annotated[App, Depends(_app_of)]
IdInPath = Annotated[int, Path(ge=1, le=LARGEST_ID)]
