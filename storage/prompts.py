"""The pool of prompts that rollouts and evaluations draw from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from storage.database import Database
from storage.records import Prompt
from storage.values import checked_text, now, sha256_of, to_json

_HELD_OUT_ONE_IN = 5


def split_of(text: str) -> Literal["train", "held_out"]:
    """Where a prompt belongs, by a hash of its text: the same in every database."""
    return "held_out" if int(sha256_of(text)[:15], 16) % _HELD_OUT_ONE_IN == 0 else "train"


def add_prompts(db: Database, prompts: Iterable[tuple[str, str, Sequence[str]]]) -> int:
    """Add (text, system prompt, tags) to the pool, all or none; returns how many were new.

    A prompt whose text is there already stays as it is. Raises BadInputError naming the one
    that is refused.
    """
    rows = []
    for number, (text, system_prompt, tags) in enumerate(prompts, start=1):
        checked_text(text, f"prompt {number}")
        checked_text(system_prompt, f"the system prompt of prompt {number}", may_be_blank=True)
        for tag in tags:
            checked_text(tag, f"a tag of prompt {number}", limit=100)
        rows.append(
            [text, sha256_of(text), system_prompt, to_json(list(tags)), split_of(text), now()]
        )
    with db.transaction() as connection:
        return sum(
            connection.execute(
                "INSERT INTO prompts (text, text_sha256, system_prompt, tags, split, created_at) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (text_sha256) DO NOTHING",
                row,
            ).rowcount
            for row in rows
        )


def list_prompts(
    db: Database, split: Literal["train", "held_out"] | None = None, limit: int | None = None
) -> list[Prompt]:
    """Prompts in the order in which they came."""
    rows = db.rows(
        "SELECT id, text, system_prompt, tags, split FROM prompts "
        "WHERE :split IS NULL OR split = :split ORDER BY id LIMIT :limit",
        {"split": split, "limit": -1 if limit is None else limit},
    )
    return [Prompt(**{**row, "tags": tuple(json.loads(row["tags"]))}) for row in rows]
