"""The step of the schema that makes the rating queue."""

from __future__ import annotations

import sqlite_utils


def m_rating_queue(connection: sqlite_utils.Database) -> None:
    """Replies made ahead for the pool's prompts, who was given which, and daily goals."""
    connection.executescript(_QUEUE)


_QUEUE = """
ALTER TABLE prompts ADD COLUMN deleted_at TEXT; -- until it is erased, deleting can be undone
CREATE TABLE queue_items ( -- turns of conversations of the origin 'queue', shared by their raters
    turn_id INTEGER PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
    prompt_id INTEGER UNIQUE REFERENCES prompts (id) ON DELETE SET NULL -- null: not handed out
) STRICT, WITHOUT ROWID;
CREATE TABLE queue_assignments (
    turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    leased_at TEXT NOT NULL,
    skipped_at TEXT,
    reason TEXT NOT NULL,
    repeats_turn_id INTEGER REFERENCES turns (id) ON DELETE CASCADE, -- null: the first time
    shown_order TEXT NOT NULL, -- of a repeat: the original's reply ids by position, a JSON list
    PRIMARY KEY (turn_id, person_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX assignments_of_person ON queue_assignments (person_id, leased_at);
CREATE INDEX repeats_of_turn ON queue_assignments (repeats_turn_id)
    WHERE repeats_turn_id IS NOT NULL;
CREATE INDEX conversations_by_origin ON conversations (origin, id) WHERE origin <> '';
CREATE TABLE queue_goals (
    person_id INTEGER PRIMARY KEY REFERENCES people (id) ON DELETE CASCADE,
    rankings_a_day INTEGER NOT NULL CHECK (rankings_a_day BETWEEN 1 AND 10000),
    changed_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- A repeat is a copy in a conversation of its own: it is erased with what it copies.
CREATE TRIGGER repeats_go_with_their_original BEFORE DELETE ON turns
BEGIN
    DELETE FROM conversations WHERE origin = 'repeat' AND id IN (
        SELECT turns.conversation_id FROM queue_assignments
        JOIN turns ON turns.id = queue_assignments.turn_id
        WHERE queue_assignments.repeats_turn_id = OLD.id);
END;
-- What the queue shows belongs to no rater: it passes to another person.
CREATE TRIGGER queue_outlives_its_keeper BEFORE DELETE ON people
WHEN EXISTS (SELECT 1 FROM people WHERE id <> OLD.id)
BEGIN
    UPDATE conversations SET person_id = (
        SELECT id FROM people WHERE id <> OLD.id ORDER BY role = 'admin' DESC, id LIMIT 1)
    WHERE origin = 'queue' AND person_id = OLD.id;
END;
"""
