"""Steps of the schema for finding ratings, and for taking an import back."""

from __future__ import annotations

import sqlite_utils
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]

# Table, the column whose words are indexed, and the index.
SEARCHED = (
    ("turns", "text", "words_of_turns"),
    ("replies", "text", "words_of_replies"),
    ("rankings", "comment", "words_of_rankings"),
    ("demonstrations", "text", "words_of_demonstrations"),
)
_SECURE_DELETE_SINCE = (3, 42, 0)


def m_words_of_ratings(connection: sqlite_utils.Database) -> None:
    """Full-text indexes over prompts, replies, comments and demonstrations."""
    for table, column, words in SEARCHED:
        connection.executescript(_WORDS.format(table=table, column=column, words=words))
        connection.execute(f"INSERT INTO {words} ({words}) VALUES ('rebuild')")
        if sqlite3.sqlite_version_info >= _SECURE_DELETE_SINCE:
            # Else an erased text would stay in the index, word by word, until segments merge.
            connection.execute(f"INSERT INTO {words} ({words}, rank) VALUES ('secure-delete', 1)")


def m_filters_of_ratings(connection: sqlite_utils.Database) -> None:
    """Indexes for what ratings are filtered by."""
    connection.executescript(
        """
        CREATE INDEX rankings_of_person ON rankings (person_id, state, id);
        CREATE INDEX rankings_by_time ON rankings (created_at);
        CREATE INDEX rankings_all_bad ON rankings (id) WHERE all_bad = 1;
        CREATE INDEX rankings_with_comment ON rankings (id) WHERE comment <> '';
        CREATE INDEX replies_of_version ON replies (version, turn_id);
        CREATE INDEX labels_by_name ON labels (label, value, person_id, reply_id);
        """
    )


def m_imports(connection: sqlite_utils.Database) -> None:
    """Which rows an import wrote, so that it can be taken back as a whole."""
    connection.executescript(
        """
        CREATE TABLE imports (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
            name TEXT NOT NULL CHECK (length(name) <= 300),
            state TEXT NOT NULL CHECK (state IN ('running', 'done', 'undone')),
            report TEXT NOT NULL,
            created_at TEXT NOT NULL
        ) STRICT;
        CREATE INDEX imports_of_person ON imports (person_id);
        CREATE TABLE imported_rows ( -- what they name may be gone: no foreign keys to it
            import_id INTEGER NOT NULL REFERENCES imports (id) ON DELETE CASCADE,
            kind TEXT NOT NULL,
            row_id INTEGER NOT NULL,
            detail TEXT NOT NULL,
            PRIMARY KEY (import_id, kind, row_id, detail)
        ) STRICT, WITHOUT ROWID;
        """
    )


_WORDS = """
CREATE VIRTUAL TABLE {words} USING fts5 (
    {column}, content = '{table}', content_rowid = 'id', columnsize = 0,
    tokenize = 'unicode61 remove_diacritics 2'
);
CREATE TRIGGER {words}_come AFTER INSERT ON {table} WHEN new.{column} <> ''
BEGIN
    INSERT INTO {words} (rowid, {column}) VALUES (new.id, new.{column});
END;
CREATE TRIGGER {words}_change AFTER UPDATE OF {column} ON {table}
    WHEN old.{column} <> new.{column}
BEGIN
    INSERT INTO {words} ({words}, rowid, {column})
        SELECT 'delete', old.id, old.{column} WHERE old.{column} <> '';
    INSERT INTO {words} (rowid, {column}) SELECT new.id, new.{column} WHERE new.{column} <> '';
END;
CREATE TRIGGER {words}_go AFTER DELETE ON {table} WHEN old.{column} <> ''
BEGIN
    INSERT INTO {words} ({words}, rowid, {column}) VALUES ('delete', old.id, old.{column});
END;
"""
