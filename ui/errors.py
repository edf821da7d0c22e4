"""Every refusal and failure as ``{"error": {"code", "message"}}``, without a stack trace.

Under ``/v1`` the shape is that of OpenAI's API.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatrlhf.errors import ChatRLHFError, TooManyAttemptsError
from ui import openai_errors

logger = logging.getLogger(__name__)

_FIELD = re.compile(r"(?!str$|bool$|int$|float$)[a-z_]+|[0-9]+")
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def error_answer(
    path: str, status: int, code: str, message: str, param: str | None = None
) -> JSONResponse:
    """An error as JSON, in the shape of the API that the path belongs to."""
    if path.startswith(openai_errors.PREFIX):
        return openai_errors.openai_error_answer(status, code, message, param)
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


def install_error_answers(server: FastAPI) -> None:
    """Have the server answer known errors, refused bodies and unknown paths in the one shape."""
    server.add_exception_handler(ChatRLHFError, _known_error)
    server.add_exception_handler(RequestValidationError, _refused_body)
    server.add_exception_handler(HTTPException, _http_error)


def unknown_path(server: FastAPI) -> ASGIApp:
    """Answers what no route of the API took, before Gradio's page would."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        allowed = _allowed_methods(server, scope)
        if allowed:
            message = f"{path} does not take {scope['method']}, only {', '.join(allowed)}."
            response = error_answer(path, 405, "method_not_allowed", message)
            response.headers["Allow"] = ", ".join(allowed)
        else:
            response = error_answer(path, 404, _no_such(path), f"There is no {path} here.")
        await response(scope, receive, send)

    return answer


def _no_such(path: str) -> str:
    return "unknown_url" if path.startswith(openai_errors.PREFIX) else "not_found"


def _allowed_methods(server: FastAPI, scope: Scope) -> list[str]:
    """Methods that the path would take."""
    found = []
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        probe = {**scope, "method": method, "root_path": scope.get("app_root_path", "")}
        fitting = (route for route in server.routes if not isinstance(route, Mount))
        if any(route.matches(probe)[0] is Match.FULL for route in fitting):
            found.append(method)
    return found


class UnexpectedErrors:
    """Middleware: an error nobody foresaw is logged under an id, and the client gets the id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer for the application when it breaks."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            name = secrets.token_hex(4)
            logger.exception("error %s at %s", name, scope.get("path", scope["type"]))
            if started or scope["type"] != "http":
                raise
            message = f"Something went wrong here. The server's log has it as error {name}."
            answer = error_answer(scope["path"], 500, "internal", message)
            await answer(scope, receive, send)


async def _known_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ChatRLHFError)
    param = getattr(error, "param", None)
    answer = error_answer(request.url.path, error.http_status, error.code, str(error), param)
    if isinstance(error, TooManyAttemptsError):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


async def _refused_body(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = list(error.errors())
    param = _field(problems[0])
    return error_answer(request.url.path, 422, "bad_input", _sentence(problems), param)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "bad_request")
    return error_answer(request.url.path, error.status_code, code, str(error.detail))


def _field(problem: dict[str, Any]) -> str | None:
    """The field of the body that a problem is about, such as ``messages.0.content``."""
    parts = [str(part) for part in problem["loc"][1:]]
    # Which type of a union was tried is no field.
    named = list(itertools.takewhile(lambda part: _FIELD.fullmatch(part), parts))
    return ".".join(named) or None


def _sentence(problems: list[dict[str, Any]]) -> str:
    """The first problem of a refused request in words, and how many more there are."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return "The body is not valid JSON. Send a JSON object."
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    words = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    more = f" ({len(problems) - 1} more problems.)" if len(problems) > 1 else ""
    return f"{where}: {words}.{more}"
