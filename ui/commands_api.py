"""``chatrlhf api``: the OpenAPI document of the server, without starting one."""

from __future__ import annotations

from typing import Annotated

import typer

from ui.terminal import print_json


def api(
    *,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Write a page to read, as docs/api.md is.")
    ] = False,
) -> None:
    """Write the OpenAPI document of the HTTP API as JSON."""
    from chatrlhf.app import build_app
    from chatrlhf.settings import load_settings
    from ui.api_markdown import markdown
    from ui.server import create_server

    server = create_server(build_app(load_settings()), with_page=False)
    if as_markdown:
        typer.echo(markdown(server.openapi()), nl=False)
    else:
        print_json(server.openapi())
