"""The objects of OpenAI's API that answer a completion."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chatrlhf.engine.requests import DrawnToken, Failed, Finished
from ui.openai_errors import openai_error
from ui.sse import compact_json

# What OpenAI gives for a token that is out of the question; JSON has no infinity.
_LEAST_LOGPROB = -9999.0
DONE = "data: [DONE]\n\n"


@dataclass
class Answer:
    """What is the same in all parts of one answer, and the tokens counted so far."""

    model: str
    with_logprobs: bool = False
    with_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    fingerprint: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def whole(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        return {**self._part("chat.completion", choices), "usage": self.usage()}

    def choice(self, event: Finished, tokens: Sequence[DrawnToken]) -> dict[str, Any]:
        """A finished reply."""
        message = {"role": "assistant", "content": event.text, "refusal": None}
        return {
            "index": event.row,
            "message": message,
            "logprobs": self._logprobs(tokens),
            "finish_reason": _finish_reason(event),
        }

    def chunk(
        self,
        row: int,
        delta: dict[str, str],
        tokens: Sequence[DrawnToken] = (),
        end: Finished | None = None,
    ) -> str:
        """One event of a stream: more of a reply."""
        choice = {
            "index": row,
            "delta": delta,
            "logprobs": self._logprobs(tokens) if tokens else None,
            "finish_reason": None if end is None else _finish_reason(end),
        }
        usage = {"usage": None} if self.with_usage else {}
        return _event({**self._part("chat.completion.chunk", [choice]), **usage})

    def usage_chunk(self) -> str:
        """The last event of a stream that is to tell the tokens."""
        return _event({**self._part("chat.completion.chunk", []), "usage": self.usage()})

    def usage(self) -> dict[str, int]:
        """Tokens of the prompt and of all replies."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def _part(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**frame, "system_fingerprint": self.fingerprint, "choices": choices}

    def _logprobs(self, tokens: Sequence[DrawnToken]) -> dict[str, Any] | None:
        if not self.with_logprobs:
            return None
        content = [
            {**_token(token), "top_logprobs": [_token(other) for other in token.alternatives]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


def failed_event(event: Failed) -> str:
    """What a stream ends with when it fails."""
    return _event(openai_error(event.http_status, event.code, event.message))


def _token(token: DrawnToken) -> dict[str, Any]:
    """A token's text, which may be part of a character, its bytes and log-probability."""
    return {
        "token": token.text.decode("utf-8", "replace"),
        "logprob": max(token.logprob, _LEAST_LOGPROB),
        "bytes": list(token.text),
    }


def _finish_reason(event: Finished) -> str:
    """OpenAI knows no interruption; a reply that was cut is not finished, so ``length``."""
    return "stop" if event.finish_reason == "stop" else "length"


def _event(data: dict[str, Any]) -> str:
    return f"data: {compact_json(data)}\n\n"
