"""The FastAPI application, and the process that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterable, Iterator

import typer
import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from chatrlhf.app import App, build_app
from chatrlhf.errors import SettingsError
from chatrlhf.settings import Settings
from ui import api_chat, api_ratings, api_reward, api_training, openai_api
from ui.errors import UnexpectedErrors, install_error_answers, unknown_path
from ui.page_policy import PageNonce
from ui.security import GuardMiddleware

_SHUTDOWN_SECONDS = 3
_LAST_EVENTS_SECONDS = 0.3


def create_server(app: App, *, hosts: Iterable[str] = (), with_page: bool = True) -> FastAPI:
    """The server of an app: security, ``/api``, ``/v1``, and the page at ``/``.

    ``hosts`` are names it answers for besides the loopback ones.
    """
    server = FastAPI(
        title="chatrlhf",
        docs_url=None,  # they would load scripts from another site
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    server.state.chatrlhf = app
    install_error_answers(server)
    # Added last is outermost. CORS with no origins: Gradio's own, laxer middleware stands down.
    server.add_middleware(UnexpectedErrors)
    server.add_middleware(CORSMiddleware, allow_origins=[])
    server.add_middleware(PageNonce)
    server.add_middleware(GuardMiddleware, hosts=hosts)
    for part in (api_chat, api_ratings, api_reward, api_training, openai_api):
        server.include_router(part.router)
    for prefix in ("/api", "/v1"):
        server.mount(prefix, unknown_path(server))
    if with_page:
        _add_page(server)
    return server


def run(settings: Settings, *, open_browser: bool, with_trainer: bool = True) -> int:
    """Serve until a signal ends it; returns the exit code.

    Raises:
        SettingsError: the address cannot be listened at.
        DataFolderBusyError: another server uses the data folder.
        StorageError: the database cannot be opened.
    """
    listener = open_listener(settings.serve.host, settings.serve.port)
    app = build_app(settings, with_trainer=with_trainer)
    with contextlib.closing(listener), _signals_end_the_server_only():
        app.start()
        try:
            server = create_server(app, hosts=[settings.serve.host])
            config = uvicorn.Config(
                server,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
            url = listener_url(listener)
            _Server(config, app, url, open_browser=open_browser).run(sockets=[listener])
        finally:
            app.stop()
    return 0


def open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens at the address; port 0 takes a free one.

    Raises:
        SettingsError: other machines could reach it, or it is taken or not allowed.
    """
    if not is_loopback(host):
        raise SettingsError(
            f"serve.host = {host!r}: other machines could reach this address, and there are no "
            "accounts yet to keep strangers out. Use 127.0.0.1, and an SSH tunnel from elsewhere."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere this option would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise SettingsError(_why_not(host, port, error)) from error
    return listener


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listener_url(listener: socket.socket) -> str:
    """The address of the page, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """The server of uvicorn, which also says where it listens and ends its streams in order."""

    def __init__(self, config: uvicorn.Config, app: App, url: str, *, open_browser: bool) -> None:
        super().__init__(config)
        self._app = app
        self._url = url
        self._open_browser = open_browser

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell the person."""
        await super().startup(sockets)
        if self.should_exit:
            return
        typer.echo(f"chatrlhf is at {self._url}   (Ctrl-C ends it)")
        if self._open_browser:
            threading.Thread(target=webbrowser.open, args=(self._url,), daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the replies, then the streams that never end by themselves, then the rest."""
        await run_in_threadpool(self._app.end_streams)
        await asyncio.sleep(_LAST_EVENTS_SECONDS)
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.close()
        await super().shutdown(sockets)


@contextlib.contextmanager
def _signals_end_the_server_only() -> Iterator[None]:
    """Uvicorn raises the signal that ended it again, which must not skip the orderly stop."""
    known = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _ignore) for number in known}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(_number: int, _frame: object) -> None:
    """Uvicorn has seen it already."""


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use, perhaps by another chatrlhf. Choose another with "
            "--port, or let --port 0 pick a free one."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} of {host} is not allowed for this user. Choose one above 1023: --port."
    return f"{host} port {port} cannot be listened at: {error.strerror}. Choose another: --port."


def _add_page(server: FastAPI) -> None:
    # Before Gradio is imported: it looks at these once.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from ui.blocks import mount_page

    mount_page(server)
