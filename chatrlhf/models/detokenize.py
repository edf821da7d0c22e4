"""Token ids to text and bytes, one id at a time."""

from __future__ import annotations

import re
from typing import Any

_REPLACEMENT = "\ufffd"
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
_SPACE_PIECE = "\u2581"


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


class TokenBytes:
    """The bytes that a token stands for: those of all tokens of a text, joined, are the text."""

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._added = {
            token_id: token.content for token_id, token in tokenizer.added_tokens_decoder.items()
        }
        self._alphabet = (
            _byte_level_alphabet() if "ByteLevel" in repr(self._backend.decoder) else {}
        )

    def of(self, token_id: int) -> bytes:
        """Bytes of one token; a control token stands for its name, an unknown id for nothing."""
        if token_id in self._added:
            return str(self._added[token_id]).encode()
        piece: str = self._backend.id_to_token(token_id) or ""
        if self._alphabet:
            return b"".join(self._alphabet.get(character, b"") for character in piece)
        if found := _BYTE_PIECE.fullmatch(piece):
            return bytes.fromhex(found[1])
        return piece.replace(_SPACE_PIECE, " ").encode()


def _byte_level_alphabet() -> dict[str, bytes]:
    """The characters that byte-level tokenizers write for bytes (Radford et al. 2019).

    Printable bytes stand for themselves, the others for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): bytes([byte]) for byte in printable}
    return alphabet | {chr(0x100 + place): bytes([byte]) for place, byte in enumerate(others)}
