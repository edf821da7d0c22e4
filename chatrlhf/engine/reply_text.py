"""The text of one growing reply: whole characters, no outer white space, nothing after a stop."""

from __future__ import annotations

from collections.abc import Sequence

from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.models.detokenize import IncrementalDetokenizer


class ReplyText:
    """Turns token ids into pieces that can be shown at once and are never taken back.

    The pieces joined are the reply: without white space around it, cut before the first stop
    string. What may turn out to be trailing white space or a stop string is held back.
    """

    def __init__(self, chat_format: ChatFormat, stops: Sequence[str]) -> None:
        self._detokenizer = IncrementalDetokenizer(chat_format.tokenizer)
        self._stops = tuple(stop for stop in stops if stop)
        self._shown: list[str] = []
        self._held = ""
        self.stopped = False

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self._shown)

    def add(self, token_id: int) -> str:
        """The piece that became certain with this token; sets ``stopped`` at a stop string."""
        return self._take(self._detokenizer.add(token_id))

    def finish(self) -> str:
        """The last piece."""
        piece = self._take(self._detokenizer.finish())
        return piece if self.stopped else piece + self._show(self._held.rstrip())

    def _take(self, new: str) -> str:
        if self.stopped or not new:
            return ""
        self._held += new
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._show(self._held[: min(found)].rstrip())
        certain = len(self._held) - self._possible_stop()
        return self._show(self._held[:certain].rstrip())

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _show(self, piece: str) -> str:
        self._held = self._held[len(piece) :]
        if not self._shown:
            piece = piece.lstrip()
        if piece:
            self._shown.append(piece)
        return piece
