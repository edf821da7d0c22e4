"""Finding a conversation by the words in it."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from storage.database import Database
from storage.records import Conversation

_LIMIT = 100
_BEFORE, _AFTER = 30, 70  # characters around the word in an excerpt
# Each text of a conversation: its title, the messages, the replies.
_TEXTS = """
    SELECT conversations.title AS text, 0 AS place
    UNION ALL
    SELECT turns.text, turns.id FROM turns WHERE turns.conversation_id = conversations.id
    UNION ALL
    SELECT replies.text, turns.id FROM turns JOIN replies ON replies.turn_id = turns.id
    WHERE turns.conversation_id = conversations.id
"""


@dataclass(frozen=True)
class Hit:
    """A conversation that was found, and the text around the first of the words."""

    conversation: Conversation
    excerpt: str


def find_conversations(db: Database, person_id: int, words: str) -> list[Hit]:
    """The person's chats that hold each of the words somewhere, newest first, 100 at most.

    Upper and lower case are the same.
    """
    wanted = words.split()
    if not wanted:
        return []
    patterns = [_patterns(word) for word in wanted]
    excerpt = f"(SELECT text FROM ({_TEXTS}) WHERE {_is_like(patterns[0])} ORDER BY place)"
    holds = [f"EXISTS (SELECT 1 FROM ({_TEXTS}) WHERE {_is_like(own)})" for own in patterns]
    rows = db.rows(
        f"SELECT *, {excerpt} AS found FROM conversations WHERE person_id = ? AND origin = '' AND "
        + " AND ".join(holds)
        + f" ORDER BY id DESC LIMIT {_LIMIT}",
        [*patterns[0], person_id, *itertools.chain(*patterns)],
    )
    return [
        Hit(excerpt=_around(row.pop("found"), wanted[0]), conversation=Conversation(**row))
        for row in rows
    ]


def _patterns(word: str) -> list[str]:
    """What a text is like that holds the word; SQLite knows the case of ASCII letters only."""
    cases = [word] if word.isascii() else {word, word.lower(), word.upper(), word.title()}
    return ["%" + re.sub(r"([!%_])", r"!\1", cased) + "%" for cased in cases]


def _is_like(patterns: list[str]) -> str:
    return " OR ".join(["text LIKE ? ESCAPE '!'"] * len(patterns))


def _around(text: str, word: str) -> str:
    found = re.search(re.escape(word), text, re.IGNORECASE)
    at = found.start() if found else 0
    start, end = max(at - _BEFORE, 0), at + len(word) + _AFTER
    cut = " ".join(text[start:end].split())
    return f"{'...' if start else ''}{cut}{'...' if end < len(text) else ''}"
