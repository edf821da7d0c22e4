"""Sentences of the program for people, which the page can say in their language.

The English template is the key of a translation in ``ui/board/languages``. It is a literal at each
call of ``say``, so that a test finds the untranslated ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sentence:
    """An English template and the values of its placeholders."""

    text: str
    values: dict[str, str | int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text.format(**self.values)

    def as_json(self) -> dict[str, object]:
        """What the page translates."""
        return dataclasses.asdict(self)


def say(text: str, **values: str | int) -> Sentence:
    """A sentence of a literal template."""
    return Sentence(text, values)


def as_it_is(text: object) -> Sentence:
    """What has no translation: the message of an error, or that of a ``Sentence``."""
    return text if isinstance(text, Sentence) else Sentence("{text}", {"text": str(text)})


def joined(sentences: Sequence[Sentence]) -> str:
    """The English text."""
    return " ".join(map(str, sentences))
