"""Steps of the schema that are about people."""

from __future__ import annotations

import sqlite_utils


def m005_invitations(connection: sqlite_utils.Database) -> None:
    """Invitations by link, and what a person needs to tell sessions and keys apart."""
    connection.executescript(
        """
        ALTER TABLE sessions ADD COLUMN last_used_at TEXT;
        ALTER TABLE sessions ADD COLUMN client TEXT NOT NULL DEFAULT '';
        ALTER TABLE api_keys ADD COLUMN hint TEXT NOT NULL DEFAULT '';
        CREATE TABLE invitations (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            token_sha256 TEXT NOT NULL UNIQUE CHECK (length(token_sha256) = 64),
            role TEXT NOT NULL CHECK (role IN ('reader', 'rater', 'trainer', 'admin')),
            note TEXT NOT NULL,
            invited_by INTEGER REFERENCES people (id) ON DELETE CASCADE, -- null: the command line
            created_at TEXT NOT NULL,
            expires_at TEXT NOT NULL,
            revoked_at TEXT,
            used_at TEXT,
            used_by INTEGER REFERENCES people (id) ON DELETE SET NULL
        ) STRICT;
        CREATE INDEX invitations_by_person ON invitations (invited_by);
        CREATE INDEX invitations_used_by_person ON invitations (used_by);
        """
    )
