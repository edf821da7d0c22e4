"""Servers that listen on a free port, in a thread of the test's process."""

from __future__ import annotations

import threading
import time

import uvicorn
from fastapi import FastAPI

from ui.server import listener_url, open_listener


class Listening:
    """Serves from its making on until ``stop``; ``url`` is where."""

    def __init__(self, server: FastAPI) -> None:
        self._listener = open_listener("127.0.0.1", 0)
        self.url = listener_url(self._listener)
        config = uvicorn.Config(server, log_level="warning", access_log=False, lifespan="on")
        self._uvicorn = uvicorn.Server(config)
        sockets = {"sockets": [self._listener]}
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs=sockets, daemon=True)
        self._thread.start()
        while not self._uvicorn.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(20)
        self._listener.close()
