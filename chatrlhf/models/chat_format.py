"""Messages to token ids, and which of them are the assistant's.

A conversation is rendered by the chat template, then cut into segments: each assistant turn
(its text and its end-of-turn token) is one segment, what lies between is the others. Segments
are encoded apart, so that ``encode_prompt(m[:i]) + encode_reply(m[i])`` is a prefix of
``encode_conversation(m)``, and a reply has the same tokens in training as in the chat.

Control tokens in content: a person may type ``<|im_end|>``. Before rendering, each occurrence
of a control token in a message is cut after its first character by a random mark; after
rendering the text is encoded apart on both sides of each mark, so that no control token can
form: the model reads the characters, not the token. Other text is encoded exactly as
``apply_chat_template`` would.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from chatrlhf.errors import BadInputError, ModelError
from chatrlhf.models.chat_renderer import ChatRenderer, PlainMessage
from chatrlhf.models.detokenize import IncrementalDetokenizer, TokenBytes

__all__ = ["ChatFormat", "IncrementalDetokenizer", "Message"]

ROLES = ("system", "user", "assistant")
_ANCHOR = "\n"
_ANY_TEXT = "a"


class Message(Protocol):
    """Anything with a role (system, user or assistant) and a content."""

    @property
    def role(self) -> str:
        """Who speaks."""

    @property
    def content(self) -> str:
        """What is said."""


class _Segment(NamedTuple):
    text: str
    is_response: bool = False


class _ControlTokens:
    """Texts that must stay characters when they stand in a message."""

    def __init__(self, texts: set[str], token_to_id: Callable[[str], int | None]) -> None:
        found = (token_to_id(text) for text in texts)
        self.ids = frozenset(token for token in found if token is not None)
        escaped = (re.escape(text) for text in sorted(texts, key=len) if len(text) > 1)
        self._starts = re.compile(f"(?={'|'.join(escaped) or '(?!)'})")

    def cut(self, content: str) -> list[str]:
        """The content in pieces that hold no control token whole."""
        cuts = [match.start() + 1 for match in self._starts.finditer(content)]
        edges = [0, *cuts, len(content)]
        return [content[start:end] for start, end in itertools.pairwise(edges)]


class ChatFormat:
    """How one tokenizer writes a conversation.

    ``extra_end_ids`` are end tokens beside the template's own: those of the generation config.
    ``suppressed_token_ids`` are the control tokens that no reply holds: neither ends of a turn nor
    what the template itself writes into one. Encoding and decoding are safe from any thread: they
    never change the tokenizer.

    Raises:
        ModelError: the tokenizer is not a fast one, or nothing can end a turn.
    """

    def __init__(self, tokenizer: Any, extra_end_ids: Iterable[int] = ()) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ModelError(
                f"The tokenizer {type(tokenizer).__name__} has no tokenizer.json. Load it with "
                "transformers' AutoTokenizer and save_pretrained it into the model's folder."
            )
        self.tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._renderer = ChatRenderer(tokenizer)
        self._bytes = TokenBytes(tokenizer)
        in_any, in_others = self._renderer.control_texts()
        self._control_of_assistant = _ControlTokens(in_any, self._backend.token_to_id)
        self._control_of_others = _ControlTokens(in_others, self._backend.token_to_id)
        self._adds_prefix_space = self._probe_prefix_space()
        self.end_token_id: int = self._backend.token_to_id(self._renderer.end_text)
        known = {self.end_token_id, tokenizer.eos_token_id, *extra_end_ids}
        self.end_token_ids: frozenset[int] = frozenset(i for i in known if i is not None)
        pad = tokenizer.pad_token_id
        self.pad_token_id: int = self.end_token_id if pad is None else pad
        spoken = self.end_token_ids.union(self.encode_reply(_ANY_TEXT))
        self.suppressed_token_ids: frozenset[int] = self._control_of_assistant.ids - spoken

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation up to where the assistant speaks.

        Raises:
            BadInputError: no messages, an unknown role, or an order that the template refuses.
        """
        mark = _new_mark()
        plain = self._prepare(messages, mark)
        segments = self._cut(self._renderer.render(plain, generate=True), plain)
        return [token for ids, _ in self._encode_segments(segments, mark) for token in ids]

    def encode_reply(self, text: str) -> list[int]:
        """Token ids of a reply, ending in the end-of-turn token."""
        asked = PlainMessage("user", _ANY_TEXT)
        encoded = self._encode_turns([asked, PlainMessage("assistant", text)])
        return next(ids for ids, is_response in encoded if is_response)

    def encode_conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Token ids, and for each whether it is the assistant's (its end-of-turn token too).

        An earlier assistant turn is left unmarked where the template rewrites it once it is no
        longer the last (some drop its reasoning): those are not the tokens it was written as.

        Raises:
            BadInputError: no messages, an unknown role, or an order that the template refuses.
        """
        encoded = self._encode_turns(messages)
        ids = [token for segment, _ in encoded for token in segment]
        is_response_token = [flag for segment, flag in encoded for _ in segment]
        return ids, is_response_token

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the tokens, as ``IncrementalDetokenizer`` streams it."""
        detokenizer = IncrementalDetokenizer(self.tokenizer)
        return "".join([detokenizer.add(token) for token in ids]) + detokenizer.finish()

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for in a reply; a character may need the bytes of several."""
        return self._bytes.of(token_id)

    def _encode_turns(self, messages: Sequence[Message]) -> list[tuple[list[int], bool]]:
        mark = _new_mark()
        plain = self._prepare(messages, mark)
        render, end_text = self._renderer.render, self._renderer.end_text
        text = render(plain, generate=False)
        if plain[-1].role != "assistant":
            return self._encode_segments(self._cut(text, plain), mark)
        lead = render(plain[:-1], generate=True)
        end = self._end_of_turn(text, lead)
        if end is not None:
            response, rest = text[len(lead) : end], text[end:]
        else:  # the template writes the last turn otherwise than it was generated
            response, rest = plain[-1].content + end_text, ""
        segments = self._cut(lead, plain[:-1])
        segments += [_Segment(response, is_response=True), _Segment(rest)]
        return self._encode_segments(segments, mark)

    def _cut(self, text: str, messages: Sequence[PlainMessage]) -> list[_Segment]:
        """Cut a rendering at the assistant turns that stand in it as they were generated."""
        segments: list[_Segment] = []
        position = 0
        for index, message in enumerate(messages):
            if message.role != "assistant" or not self._renderer.ends_earlier:
                continue
            lead = self._renderer.render(messages[:index], generate=True)
            end = self._end_of_turn(text, lead)
            if end is not None:
                segments.append(_Segment(text[position : len(lead)]))
                segments.append(_Segment(text[len(lead) : end], is_response=True))
                position = end
        segments.append(_Segment(text[position:]))
        return segments

    def _end_of_turn(self, text: str, lead: str) -> int | None:
        """Where the turn after ``lead`` ends; None when ``text`` does not go on from it."""
        # Content cannot hold the end token whole, so the first one ends the turn.
        start = text.find(self._renderer.end_text, len(lead))
        if start < 0 or not text.startswith(lead):
            return None
        return start + len(self._renderer.end_text)

    def _prepare(self, messages: Sequence[Message], mark: str) -> list[PlainMessage]:
        """Check the messages and cut the control tokens in their content by ``mark``."""
        if not messages:
            raise BadInputError("The conversation has no messages. Send at least one.")
        plain: list[PlainMessage] = []
        for index, message in enumerate(messages):
            if message.role not in ROLES:
                raise BadInputError(f"Role {message.role!r} is not one of {', '.join(ROLES)}.")
            if message.role == "system" and index:
                raise BadInputError("A system message must be the first of the conversation.")
            plain.append(PlainMessage(message.role, mark.join(self._harmless_pieces(message))))
        if plain[0].role == "system" and not self._renderer.has_system_role:
            if len(plain) == 1 or plain[1].role != "user":
                raise BadInputError("A user message must follow the system message.")
            joined = f"{plain[0].content}\n\n{plain[1].content}"
            plain[:2] = [PlainMessage("user", joined)]
        return plain

    def _harmless_pieces(self, message: Message) -> list[str]:
        try:
            message.content.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadInputError(
                f"Character {error.start} of a message is half a character (a lone surrogate). "
                "Remove it."
            ) from error
        is_assistant = message.role == "assistant"
        control = self._control_of_assistant if is_assistant else self._control_of_others
        pieces = control.cut(message.content)
        if any(not control.ids.isdisjoint(self._encode_text(piece)) for piece in pieces):
            # A tokenizer that normalises text before it looks for its control tokens.
            raise BadInputError(
                "A message has characters that this model reads as a control token. Remove them."
            )
        return pieces

    def _encode_segments(
        self, segments: Iterable[_Segment], mark: str
    ) -> list[tuple[list[int], bool]]:
        encoded: list[tuple[list[int], bool]] = []
        after_text = False
        for segment in segments:
            ids: list[int] = []
            for piece in segment.text.split(mark):
                ids += self._encode_text(piece, after_text=after_text)
                after_text = bool(ids) and ids[-1] not in self._control_of_others.ids
            if ids:
                encoded.append((ids, segment.is_response))
        return encoded

    def _encode_text(self, text: str, *, after_text: bool = False) -> list[int]:
        """Ids of a text; ``after_text`` keeps back the space that some tokenizers begin with."""
        if after_text and self._adds_prefix_space:
            anchor = self._encode_text(_ANCHOR)
            joined = self._encode_text(_ANCHOR + text)
            if joined[: len(anchor)] == anchor:
                return joined[len(anchor) :]
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _probe_prefix_space(self) -> bool:
        anchor, joined = self._encode_text(_ANCHOR), self._encode_text(_ANCHOR + "a")
        return joined[: len(anchor)] == anchor and joined[len(anchor) :] != self._encode_text("a")


def _new_mark() -> str:
    return f"\ufdd0{secrets.token_hex(8)}\ufdd1"
