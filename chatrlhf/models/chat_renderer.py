"""Messages to text, by a tokenizer's chat template, and what that template can do.

The date that some templates print is fixed and thinking is switched off, so that the same
conversation is the same text tomorrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2

from chatrlhf.errors import BadInputError, ModelError
from chatrlhf.models.chat_templates import template_for

FIXED_DATE = "26 Jul 2024"  # what Llama's own template prints when nobody tells it the date
# Templates call strftime_now; a macro of that name hides the real clock from them.
_FIXED_CLOCK = "{%- macro strftime_now(format) -%}" + FIXED_DATE + "{%- endmacro -%}"
_PROBE = "PROBE-TEXT"


class PlainMessage(NamedTuple):
    """One message: role is system, user or assistant."""

    role: str
    content: str


class ChatRenderer:
    """The template of one tokenizer.

    ``end_text`` is the token that ends an assistant turn; ``ends_earlier`` says whether the
    template writes it after every turn, or leaves it out between turns.

    Raises:
        ModelError: the template cannot be used, or nothing can end a turn.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        token_to_id = tokenizer.backend_tokenizer.token_to_id
        self.template: str = _own_template(tokenizer) or template_for(
            lambda text: token_to_id(text) is not None
        )
        self._added = {
            token.content: token.special
            for token in tokenizer.added_tokens_decoder.values()
            if token.content.strip()
        }
        self._added.update(dict.fromkeys(tokenizer.all_special_tokens, True))
        self.has_system_role = self._probe_system_role()
        self._probe_turn_ends()

    def render(self, messages: Sequence[PlainMessage], *, generate: bool) -> str:
        """The conversation as text; ``generate`` adds what comes before an assistant's reply.

        Raises:
            BadInputError: the template refuses the order of the messages.
        """
        try:
            text: str = self._tokenizer.apply_chat_template(
                [message._asdict() for message in messages],
                chat_template=_FIXED_CLOCK + self.template,
                tokenize=False,
                add_generation_prompt=generate,
                enable_thinking=False,
                date_string=FIXED_DATE,
            )
        except jinja2.TemplateError as error:
            raise BadInputError(
                f"The model's chat template refuses the conversation: {error}. Begin with a user "
                "message and let user and assistant alternate."
            ) from error
        return text

    def control_texts(self) -> tuple[set[str], set[str]]:
        """Texts that content must not turn into tokens: (in any message, in system and user).

        Always the special tokens and the turn markers. In system and user messages also what
        else the template writes, such as ``<think>``: only the assistant may say that.
        """
        always = {text for text, special in self._added.items() if special}
        always |= {text for text in self._added if text in self._rendered_turns}
        always.discard(self._tokenizer.unk_token)
        return always, always | {text for text in self._added if text in self.template}

    def _probe_system_role(self) -> bool:
        try:
            messages = [PlainMessage("system", _PROBE), PlainMessage("user", "a")]
            return _PROBE in self.render(messages, generate=True)
        except BadInputError:
            return False

    def _probe_turn_ends(self) -> None:
        turns = [PlainMessage("user", "a"), PlainMessage("assistant", _PROBE)]
        try:
            last = self.render(turns, generate=False)
            earlier = self.render([*turns, PlainMessage("user", "b")], generate=False)
        except BadInputError as error:
            raise ModelError(f"The model's chat template cannot be used: {error}") from error
        self._rendered_turns = earlier
        tail = last.partition(_PROBE)[2]
        found = [(tail.index(text), -len(text), text) for text in self._added if text in tail]
        end_text = min(found)[2] if found else self._tokenizer.eos_token
        if end_text is None:
            raise ModelError(
                "The model has no end-of-turn token: its template writes none and its tokenizer "
                "has no eos_token. Choose a chat model."
            )
        self.end_text: str = end_text
        self.ends_earlier = end_text in earlier.partition(_PROBE)[2]


def _own_template(tokenizer: Any) -> str | None:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or None
