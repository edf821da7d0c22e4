"""What a person types to find ratings, as queries of the full-text indexes."""

from __future__ import annotations

import re

from chatrlhf.errors import BadInputError
from storage.values import checked_text

MAX_TERMS = 8
_TERM = re.compile(r'"([^"]*)"|(\S+)')
_SPOKEN = re.compile(r"\w")


def search_terms(text: str) -> list[str]:
    """FTS5 queries, of which a rating must meet each: a word's beginning, or a "quoted phrase".

    Raises:
        BadInputError: it is too long, holds too many words, or none at all.
    """
    checked_text(text, "the search", limit=1000)
    terms = []
    for phrase, word in _TERM.findall(text):
        plain = (phrase or word).replace('"', " ")
        if _SPOKEN.search(plain):
            terms.append(f'"{plain.strip()}"' + ("" if phrase else " *"))
    if not terms:
        raise BadInputError(f"{text!r} holds no word to search for; type letters or digits")
    if len(terms) > MAX_TERMS:
        raise BadInputError(f"the search has {len(terms)} words; at most {MAX_TERMS} are taken")
    return terms
