"""The FastAPI application, and the process that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import typer
import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from chatrlhf.app import App, build_app
from chatrlhf.errors import SettingsError
from chatrlhf.settings import Settings, is_loopback
from storage.database import open_database
from storage.people import has_accounts
from ui import (
    api_chat,
    api_data,
    api_demonstrations,
    api_evidence,
    api_imports,
    api_me,
    api_people,
    api_prompts,
    api_queue,
    api_rankings,
    api_ratings,
    api_reward,
    api_training,
    api_turns,
    openai_api,
)
from ui.api_document import install_document
from ui.errors import UnexpectedErrors, install_error_answers, unknown_path
from ui.gate import Gate, guarded_routes
from ui.login_page import mount_login
from ui.page_policy import PageNonce
from ui.security import BodyLimit, GuardMiddleware
from ui.throttle import Throttle
from ui.window import find_browser, open_window

_PARTS = (
    api_chat,
    api_turns,
    api_me,
    api_people,
    api_prompts,
    api_queue,
    api_ratings,
    api_rankings,
    api_demonstrations,
    api_data,
    api_imports,
    api_reward,
    api_evidence,  # before training: /versions/compare must not be taken for a version's name
    api_training,
    openai_api,
)
_SHUTDOWN_SECONDS = 3
_LAST_EVENTS_SECONDS = 0.3
_M_ARENA_MAX = -8  # of glibc's malloc.h


def create_server(app: App, *, hosts: Iterable[str] = (), with_page: bool = True) -> FastAPI:
    """The server of an app: security, ``/api``, ``/v1``, and the page at ``/``.

    ``hosts`` are names it answers for besides the loopback ones. Raises RuntimeError when a route
    has no role in `ui.roles`.
    """
    server = FastAPI(
        title="chatrlhf",
        docs_url=None,  # they would load scripts from another site
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    server.state.chatrlhf = app
    install_error_answers(server)
    install_document(server)
    # Added last is outermost. CORS with no origins: Gradio's own, laxer middleware stands down.
    server.add_middleware(UnexpectedErrors)
    server.add_middleware(CORSMiddleware, allow_origins=[])
    server.add_middleware(PageNonce)
    server.add_middleware(BodyLimit)
    server.add_middleware(Gate, server=server)
    is_reached_by_others = not is_loopback(app.settings.serve.host)
    server.add_middleware(GuardMiddleware, hosts=hosts, any_address=is_reached_by_others)
    server.state.throttle = Throttle()
    for part in _PARTS:
        server.include_router(part.router)
    mount_login(server)
    for prefix in ("/api", "/v1"):
        server.mount(prefix, unknown_path(server))
    if with_page:
        _add_page(server)
    server.state.guarded_routes = guarded_routes(server)
    return server


def run(
    settings: Settings, *, open_browser: bool, with_trainer: bool = True, window: bool = False
) -> int:
    """Serve until a signal ends it; returns the exit code.

    With ``open_browser`` the page opens in a browser, with ``window`` in a window of its own.

    Raises:
        SettingsError: the address cannot be listened at, needs accounts first, or no browser has
            windows of that kind.
        DataFolderBusyError: another server uses the data folder.
        StorageError: the database cannot be opened.
    """
    open_page: Callable[[str], object] | None = webbrowser.open if open_browser else None
    if window:
        open_page = partial(open_window, find_browser())
    _share_heaps()
    require_accounts(settings)
    listener = open_listener(settings.serve.host, settings.serve.port)
    app = build_app(settings, with_trainer=with_trainer)
    with contextlib.closing(listener), _signals_end_the_server_only():
        app.start()
        try:
            server = create_server(app, hosts=own_hosts(settings))
            config = uvicorn.Config(
                server,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.serve.trusted_proxies),
                forwarded_allow_ips=list(settings.serve.trusted_proxies),
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
            url = listener_url(listener)
            _Server(config, app, url, open_page).run(sockets=[listener])
        finally:
            app.stop()
    return 0


def _share_heaps() -> None:
    """Have glibc keep two heaps, not one for each of a hundred threads: those only ever grow."""
    with contextlib.suppress(AttributeError, OSError):  # other C libraries know no such setting
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens at the address; port 0 takes a free one.

    Raises:
        SettingsError: it is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio would not see that it is TCP and leave TCP_NODELAY off: 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # elsewhere this option would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise SettingsError(_why_not(host, port, error)) from error
    return listener


def require_accounts(settings: Settings) -> None:
    """Raise SettingsError when others could reach the server, and nobody has an account."""
    serve = settings.serve
    if serve.is_for_this_computer:
        return
    with contextlib.closing(open_database(settings.database_path)) as db:
        if has_accounts(db):
            return
    if is_loopback(serve.host):
        where = "serve.hosts and serve.trusted_proxies are for a proxy, through which"
    else:
        where = f"serve.host = {serve.host!r}: through this address"
    raise SettingsError(
        f"{where} other machines could reach the server, and there are no accounts to keep "
        "strangers out. Make the first one with: "
        f"chatrlhf people add --admin NAME --data '{settings.data_dir}'; then start again, and "
        "invite others with: chatrlhf people invite. For yourself alone, use 127.0.0.1, from "
        f"elsewhere through: ssh -L {serve.port}:127.0.0.1:{serve.port} THIS-COMPUTER"
    )


def own_hosts(settings: Settings) -> list[str]:
    """The names that the server answers for, besides those of the loopback address."""
    serve = settings.serve
    names = [serve.host, *serve.hosts]
    if not is_loopback(serve.host):
        machine = socket.gethostname()
        names += [machine, f"{machine}.local"]
    return names


def listener_url(listener: socket.socket) -> str:
    """The address of the page, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """The server of uvicorn, which also says where it listens and ends its streams in order."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: App,
        url: str,
        open_page: Callable[[str], object] | None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._url = url
        self._open_page = open_page

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell the person."""
        await super().startup(sockets)
        if self.should_exit:
            return
        typer.echo(f"chatrlhf is at {self._url}   (Ctrl-C ends it)")
        serve = self._app.settings.serve
        if not is_loopback(serve.host) and not serve.trusted_proxies:
            typer.echo(
                "Others can reach it, and what they send, passwords too, is not encrypted on its "
                "way. docs/teams.md says how to put a proxy with https before it."
            )
        if self._open_page is not None:
            threading.Thread(target=self._open_page, args=(self._url,), daemon=True).start()

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
