"""Token ids to text, one id at a time."""

from __future__ import annotations

from typing import Any

_REPLACEMENT = "\ufffd"


class IncrementalDetokenizer:
    """Text of a growing reply, in pieces that never end within a UTF-8 character.

    Special tokens have no text. Bytes that never become a character are U+FFFD. Decoding goes
    on from the last piece rather than from nothing, because some tokenizers write the space
    before a word only when something comes before it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._shown_ids: list[int] = []
        self._shown_text = ""
        self._pending: list[int] = []

    def add(self, token_id: int) -> str:
        """The text that became certain with this token; empty within a character."""
        self._pending.append(token_id)
        text = self._decode(self._shown_ids + self._pending)
        if text.endswith(_REPLACEMENT) or text == self._shown_text:
            return ""
        return self._take(text)

    def finish(self) -> str:
        """What is left at the end of the reply: part of a character becomes U+FFFD."""
        return self._take(self._decode(self._shown_ids + self._pending)) if self._pending else ""

    def _take(self, text: str) -> str:
        if text.startswith(self._shown_text):
            piece = text[len(self._shown_text) :]
        else:  # byte-fallback tokenizers spoil a whole run of bytes when one of it is wrong
            piece = self._decode(self._pending)
        if piece:
            self._shown_ids, self._pending = self._pending, []
            self._shown_text = self._decode(self._shown_ids)
        return piece

    def _decode(self, ids: list[int]) -> str:
        text: str = self._backend.decode(ids, skip_special_tokens=True)
        return text
