"""The pool of prompts that rollouts, evaluations and the rating queue draw from.

A deleted prompt is left out everywhere, but stays in the file for a day, so that deleting it can be
undone.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import sqlite_utils

from chatrlhf.errors import ConflictError, NotFoundError
from storage.database import Database, Parameters
from storage.records import Prompt
from storage.values import checked_text, now, sha256_of, to_json

_HELD_OUT_ONE_IN = 5
_UNDO_DAYS = 1
PROMPT_COLUMNS = "prompts.id, prompts.text, prompts.system_prompt, prompts.tags, prompts.split"

Split = Literal["train", "held_out"]


def split_of(text: str) -> Split:
    """Where a prompt belongs, by a hash of its text: the same in every database."""
    return "held_out" if int(sha256_of(text)[:15], 16) % _HELD_OUT_ONE_IN == 0 else "train"


def add_prompts(db: Database, prompts: Iterable[tuple[str, str, Sequence[str]]]) -> int:
    """Add (text, system prompt, tags) to the pool, all or none; returns how many were new.

    A prompt whose text is there already stays as it is. Raises BadInputError naming the one
    that is refused.
    """
    rows = [
        prompt_row(text, system_prompt, tags, f"prompt {number}")
        for number, (text, system_prompt, tags) in enumerate(prompts, start=1)
    ]
    with db.transaction() as connection:
        return insert_prompts(connection, rows)


def prompt_row(
    text: str, system_prompt: str, tags: Sequence[str], what: str = "the prompt"
) -> list[str]:
    """The columns of a prompt, or BadInputError naming it as ``what``."""
    checked_text(text, what)
    checked_text(system_prompt, f"the system prompt of {what}", may_be_blank=True)
    for tag in tags:
        checked_text(tag, f"a tag of {what}", limit=100)
    distinct = list(dict.fromkeys(tags))
    return [text, sha256_of(text), system_prompt, to_json(distinct), split_of(text), now()]


def insert_prompts(connection: sqlite_utils.Database, rows: Iterable[Sequence[str]]) -> int:
    """Insert rows of `prompt_row` in the caller's transaction; returns how many were new.

    One that was deleted is new again.
    """
    return sum(
        connection.execute(
            "INSERT INTO prompts (text, text_sha256, system_prompt, tags, split, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (text_sha256) DO UPDATE SET deleted_at = NULL, "
            "system_prompt = excluded.system_prompt, tags = excluded.tags "
            "WHERE prompts.deleted_at IS NOT NULL",
            row,
        ).rowcount
        for row in rows
    )


def get_prompt(db: Database, prompt_id: int) -> Prompt:
    """One prompt of the pool; NotFoundError also when it was deleted."""
    found = _prompts(db, "id = ?", [prompt_id])
    if not found:
        raise NotFoundError(f"there is no prompt {prompt_id} in the pool")
    return found[0]


def list_prompts(
    db: Database,
    split: Split | None = None,
    limit: int | None = None,
    *,
    tag: str | None = None,
    containing: str = "",
    after_id: int = 0,
) -> list[Prompt]:
    """Prompts in the order in which they came; ``containing`` is text, of any case, in them."""
    where = (
        "id > :after AND (:split IS NULL OR split = :split) "
        "AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(prompts.tags) WHERE value = :tag)) "
        "AND (:containing = '' OR instr(lower(text), lower(:containing)) > 0)"
    )
    parameters = {"after": after_id, "split": split, "tag": tag, "containing": containing}
    return _prompts(db, where, {**parameters, "limit": -1 if limit is None else limit})


def list_tags(db: Database) -> list[tuple[str, int]]:
    """The tags of the pool, and how many prompts have each; the most frequent first."""
    rows = db.rows(
        "SELECT value AS tag, count(*) AS n FROM prompts, json_each(prompts.tags) "
        "WHERE deleted_at IS NULL GROUP BY value ORDER BY n DESC, tag"
    )
    return [(row["tag"], int(row["n"])) for row in rows]


def never_filled(db: Database) -> bool:
    """Whether the pool has never had a prompt; one that was emptied stays empty."""
    return db.row("SELECT 1 FROM sqlite_sequence WHERE name = 'prompts'") is None


def change_prompt(
    db: Database,
    prompt_id: int,
    *,
    text: str | None = None,
    system_prompt: str | None = None,
    tags: Sequence[str] | None = None,
) -> Prompt:
    """Change what is given. Replies to the words as they were are not handed out any more.

    Raises:
        BadInputError: a value is refused.
        NotFoundError: there is no such prompt.
        ConflictError: another prompt has that text, a deleted one included.
    """
    with db.transaction() as connection:
        before = get_prompt(db, prompt_id)
        row = prompt_row(
            before.text if text is None else text,
            before.system_prompt if system_prompt is None else system_prompt,
            before.tags if tags is None else tags,
        )
        twin = db.row(
            "SELECT id, deleted_at FROM prompts WHERE text_sha256 = ? AND id <> ?",
            [row[1], prompt_id],
        )
        if twin is not None and twin["deleted_at"] is None:
            raise ConflictError(f"prompt {twin['id']} has this text already; change or delete it")
        if twin is not None:
            connection.execute("DELETE FROM prompts WHERE id = ?", [twin["id"]])
        connection.execute(
            "UPDATE prompts SET text = ?, text_sha256 = ?, system_prompt = ?, tags = ?, split = ? "
            "WHERE id = ?",
            [*row[:5], prompt_id],
        )
        if (before.text, before.system_prompt) != (row[0], row[2]):
            connection.execute(
                "UPDATE queue_items SET prompt_id = NULL WHERE prompt_id = ?", [prompt_id]
            )
    return get_prompt(db, prompt_id)


def delete_prompt(db: Database, prompt_id: int) -> None:
    """Take a prompt out of the pool; its ratings stay. NotFoundError when it is not there."""
    with db.transaction() as connection:
        get_prompt(db, prompt_id)
        connection.execute("UPDATE prompts SET deleted_at = ? WHERE id = ?", [now(), prompt_id])


def restore_prompt(db: Database, prompt_id: int) -> Prompt:
    """Undo `delete_prompt`; NotFoundError once the prompt has been erased."""
    with db.transaction() as connection:
        changed = connection.execute(
            "UPDATE prompts SET deleted_at = NULL WHERE id = ?", [prompt_id]
        ).rowcount
        if not changed:
            raise NotFoundError(f"prompt {prompt_id} has been erased; write it again")
    return get_prompt(db, prompt_id)


def erase_deleted(db: Database, *, days: float = _UNDO_DAYS) -> int:
    """Erase prompts that were deleted ``days`` ago; returns how many."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    with db.transaction() as connection:
        gone = connection.execute(
            "DELETE FROM prompts WHERE deleted_at <= ?", [now(before)]
        ).rowcount
    if gone:
        db.forget_erased()
    return int(gone)


def prompt_from(row: dict[str, Any]) -> Prompt:
    """The record of a row with `PROMPT_COLUMNS`."""
    return Prompt(**{**row, "tags": tuple(json.loads(row["tags"]))})


def _prompts(db: Database, where: str, parameters: Parameters) -> list[Prompt]:
    tail = "LIMIT :limit" if isinstance(parameters, dict) else ""
    rows = db.rows(
        f"SELECT {PROMPT_COLUMNS} FROM prompts WHERE deleted_at IS NULL AND {where} "
        f"ORDER BY id {tail}",
        parameters,
    )
    return [prompt_from(row) for row in rows]


def find_prompt(db: Database, text: str) -> Prompt:
    """The prompt of a text, or NotFoundError."""
    found = _prompts(db, "text_sha256 = ?", [sha256_of(text)])
    if not found:
        raise NotFoundError("the pool has no such prompt")
    return found[0]
