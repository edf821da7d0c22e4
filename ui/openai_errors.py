"""Errors of ``/v1`` in the shape and with the statuses of OpenAI's API.

Its clients turn the status into an exception, and try 408, 409, 429 and 5xx again by themselves,
so a version that can never be used is a model that is not found rather than a conflict.
"""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from chatrlhf.errors import BadInputError

PREFIX = "/v1/"
RETRY_SECONDS = 1

_STATUS = {422: 400, 409: 404}
_CODES = {
    "bad_input": "invalid_value",
    "context_overflow": "context_length_exceeded",
    "not_found": "model_not_found",
    "conflict": "model_not_found",
    "bad_version": "model_not_found",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ParameterError(BadInputError):
    """A parameter has a value that it cannot have here, or is not known."""

    def __init__(self, param: str, message: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def openai_status(status: int) -> int:
    """The status that OpenAI's API has for one of ours."""
    return _STATUS.get(status, status)


def openai_error(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The body of an error, from our own status and code."""
    status = openai_status(status)
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    known = _CODES.get(code, code)
    return {"error": {"message": message, "type": kind, "param": param, "code": known}}


def openai_error_answer(
    status: int, code: str, message: str, param: str | None = None
) -> JSONResponse:
    """An error as an answer; what may work later says when to try again."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    body = openai_error(status, code, message, param)
    return JSONResponse(body, status_code=openai_status(status), headers=headers)
