"""What a person is told when a request fails."""

from __future__ import annotations

import torch

from chatrlhf.engine.requests import Failed
from chatrlhf.errors import ChatRLHFError


def failure_of(error: Exception) -> Failed:
    """The last event of a request that an exception ended."""
    if isinstance(error, ChatRLHFError):
        return Failed(error.code, str(error), error.http_status)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Failed(
            "out_of_memory",
            "The memory does not hold this conversation. Ask for fewer replies or start a new one.",
            503,
        )
    return Failed(
        "model",
        f"The model failed while it answered ({type(error).__name__}: {error}). Ask again; the "
        "log has the details.",
    )
