"""The HTTP API as a simulated rater uses it: retries, and counts what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from chatrlhf.errors import ChatRLHFError

Sleep = Callable[[float], None]
Json = dict[str, Any]

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 10.0
_CONNECT_SECONDS = 15.0
# Replies of a small machine may take minutes; the connection itself may not.
_TIMEOUT = httpx.Timeout(30.0, read=900.0)
_RETRIED = (503,)


class RequestFailedError(ChatRLHFError):
    """The server refused a request, or could not be reached."""

    code = "request_failed"


def http_client(url: str, api_key: str | None = None) -> httpx.Client:
    """A client of the server at ``url``."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.Client(base_url=url, timeout=_TIMEOUT, headers=headers)


class ApiClient:
    """Calls the API; waits and retries while the server loads or is full.

    ``retries`` counts repeated requests, ``failures`` lists the requests given up.
    """

    def __init__(
        self, http: httpx.Client, *, max_wait: float = 900.0, sleep: Sleep = time.sleep
    ) -> None:
        self._http = http
        self._max_wait = max_wait
        self.sleep = sleep
        self.retries = 0
        self.failures: list[Json] = []

    def get(self, path: str, **params: str | int) -> Any:
        """GET ``path``; the decoded JSON.

        Raises:
            RequestFailedError: after a refusal, or ``max_wait`` seconds of 503.
        """
        return self._request("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST ``body`` as JSON to ``path``; the decoded JSON. Raises as ``get`` does."""
        return self._request("POST", path, body=dict(body or {}))

    def wait_until_ready(self, tell: Callable[[str], None]) -> Json:
        """Wait until the model is loaded; returns ``/api/health``.

        Raises:
            RequestFailedError: nobody listens, the model failed to load, or it takes longer
                than ``max_wait`` seconds.
        """
        waited, told = 0.0, ""
        while True:
            health = self._health(waited)
            if health is not None and health["status"] == "ok":
                return health
            if health is not None and health["status"] == "failed":
                why = health.get("message") or "its own output says why"
                raise RequestFailedError(f"The server could not load its model: {why}")
            if waited >= self._max_wait:
                raise RequestFailedError(
                    f"The model was not ready within {self._max_wait:.0f} s. "
                    "Try again later, or with a longer --max-wait."
                )
            text = "waiting for the server" if health is None else _loading_text(health)
            if text != told:
                tell(text)
                told = text
            self.sleep(1.0)
            waited += 1.0

    def _health(self, waited: float) -> Json | None:
        try:
            response = self._http.get("/api/health")
        except httpx.TransportError as error:
            if waited < _CONNECT_SECONDS:
                return None
            raise RequestFailedError(
                f"No server answers at {self._http.base_url} ({error}). "
                "Start one with: chatrlhf serve"
            ) from error
        if response.status_code in _RETRIED:
            return None
        return dict(self._decode("GET", "/api/health", response))

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Json | None = None,
    ) -> Any:
        waited, delay = 0.0, _FIRST_DELAY
        while True:
            try:
                response = self._http.request(method, path, params=params, json=body)
            except httpx.TransportError as error:
                # Not repeated: the server may have acted on it.
                raise self._failed(
                    method, path, None, f"{type(error).__name__}: {error}"
                ) from error
            if response.status_code not in _RETRIED or waited >= self._max_wait:
                return self._decode(method, path, response)
            self.retries += 1
            self.sleep(delay)
            waited += delay
            delay = min(2 * delay, _LONGEST_DELAY)

    def _decode(self, method: str, path: str, response: httpx.Response) -> Any:
        try:
            content = response.json()
        except ValueError:
            content = None
        if response.is_success and content is not None:
            return content
        raise self._failed(method, path, response.status_code, _error_text(content, response))

    def _failed(
        self, method: str, path: str, status: int | None, message: str
    ) -> RequestFailedError:
        self.failures.append({"method": method, "path": path, "status": status, "message": message})
        shown = "no answer" if status is None else f"status {status}"
        return RequestFailedError(f"{method} {path} failed ({shown}): {message}")


def _error_text(content: Any, response: httpx.Response) -> str:
    if isinstance(content, dict) and isinstance(content.get("error"), dict):
        return str(content["error"].get("message", ""))
    return response.text[:300] or response.reason_phrase


def _loading_text(health: Json) -> str:
    loading = health.get("loading") or {}
    stage = str(loading.get("stage") or "starting")
    tenth = int(10 * float(loading.get("fraction") or 0.0))
    return f"waiting for the model: {stage} {10 * tenth}%"
