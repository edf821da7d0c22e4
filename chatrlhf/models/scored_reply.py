"""A reply as the reward model reads it: its context and itself, as tokens."""

from __future__ import annotations

from collections.abc import Sequence

from chatrlhf.models.chat_format import ChatFormat, Message


def context_and_reply(
    chat_format: ChatFormat,
    messages: Sequence[Message],
    text: str,
    *,
    finished: bool,
    longest: int,
) -> tuple[list[int], list[int]]:
    """The last ``longest`` tokens of context and reply, one of the context at least.

    A reply that did not end by itself (``finished``) has no end token, as when it was sampled.
    """
    reply = chat_format.encode_reply(text)
    if not finished:
        reply = [token for token in reply if token not in chat_format.end_token_ids]
    reply = reply[-longest:] or [chat_format.end_token_id]
    room = max(longest - len(reply), 1)
    return chat_format.encode_prompt(messages)[-room:], reply
