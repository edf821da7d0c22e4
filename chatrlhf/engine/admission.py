"""What a request must be before the engine takes it; checked on the thread that asks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chatrlhf.engine.requests import ChatMessage, ReplyRequest, Sampling
from chatrlhf.engine.small_batch import FILLED_ROWS
from chatrlhf.errors import BadInputError, ContextOverflowError

MAX_REPLIES = FILLED_ROWS
SHORTEST_REPLY = 16
MOST_ALTERNATIVES = 20


def check_request(request: ReplyRequest) -> None:
    """Refuse what can never work.

    Raises:
        BadInputError: says which value, and what it may be.
    """
    _check_messages(request.messages)
    _check_sampling(request.sampling)
    if not 1 <= request.replies <= MAX_REPLIES:
        raise BadInputError(f"replies is {request.replies}; ask for 1 to {MAX_REPLIES}.")
    if request.versions and len(request.versions) != request.replies:
        raise BadInputError(
            f"{len(request.versions)} versions are named for {request.replies} replies; name one "
            "each, or none for the live version."
        )


def room_for_reply(prompt_tokens: int, max_new_tokens: int, context_tokens: int) -> int:
    """New tokens that a reply may have: what was asked, or what fits if that is enough.

    Raises:
        ContextOverflowError: the prompt leaves no room for a reply.
    """
    room = context_tokens - prompt_tokens
    if room < min(SHORTEST_REPLY, max_new_tokens):
        raise ContextOverflowError(
            f"The conversation has {prompt_tokens} tokens, and the context holds {context_tokens} "
            "with the reply. Shorten the message or start a new conversation."
        )
    return min(max_new_tokens, room)


def _check_messages(messages: Sequence[ChatMessage]) -> None:
    if not messages or messages[-1].role != "user":
        raise BadInputError("The last message must be the user's. Send what is to be answered.")
    for message in messages:
        if message.role == "user" and not message.content.strip():
            raise BadInputError("A message is blank. Write something to answer.")
        if "\0" in message.content:
            raise BadInputError("A message has a NUL character. Remove it.")


def _check_sampling(sampling: Sampling) -> None:
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0.0):
        raise BadInputError(f"temperature is {sampling.temperature}; it must be 0 or more.")
    if not 0.0 < sampling.top_p <= 1.0:
        raise BadInputError(f"top_p is {sampling.top_p}; it must be above 0 and at most 1.")
    if sampling.top_k < 0:
        raise BadInputError(f"top_k is {sampling.top_k}; it must be 0 (off) or more.")
    if not 0 <= (sampling.top_logprobs or 0) <= MOST_ALTERNATIVES:
        raise BadInputError(
            f"top_logprobs is {sampling.top_logprobs}; it must be 0 to {MOST_ALTERNATIVES}."
        )
    if sampling.max_new_tokens < 1:
        raise BadInputError(f"max_new_tokens is {sampling.max_new_tokens}; it must be 1 or more.")
