"""The schema, as steps that are only ever added to.

``PRAGMA user_version`` counts the steps a file has had. A step that has been released is never
changed; a later one mends it. JSON has no CHECK: before SQLite 3.41, json_valid() may not stand in
a schema that is not trusted.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import sqlite_utils

from chatrlhf.errors import StorageError
from storage.backup import write_backup
from storage.migrations_people import m005_invitations
from storage.migrations_queue import m_rating_queue
from storage.migrations_ratings import m_filters_of_ratings, m_imports, m_words_of_ratings

APPLICATION_ID = 0x43524C48  # "CRLH": tells our files from other programs' databases
Migration = Callable[[sqlite_utils.Database], None]


def m001_first_schema(connection: sqlite_utils.Database) -> None:
    """All tables of the first release."""
    for script in (_PEOPLE, _CHATS, _RATINGS, _TRAINING):
        connection.executescript(script)


def m002_terms_of_samples(connection: sqlite_utils.Database) -> None:
    """What each term of the reward adds to a sample's score, as a JSON object."""
    connection.execute("ALTER TABLE run_samples ADD COLUMN terms TEXT NOT NULL DEFAULT '{}'")


def m003_choices(connection: sqlite_utils.Database) -> None:
    """Why a reply is shown, and what the replies of a turn were chosen from."""
    for column in _CHOSEN_REPLIES:
        connection.execute(f"ALTER TABLE replies ADD COLUMN {column}")
    connection.execute(_CHOICES)


def m004_origin_of_conversations(connection: sqlite_utils.Database) -> None:
    """Where an imported conversation came from, and a hash that recognises it the next time."""
    connection.executescript(
        """
        ALTER TABLE conversations ADD COLUMN origin TEXT NOT NULL DEFAULT '';
        ALTER TABLE conversations ADD COLUMN origin_key TEXT;
        CREATE INDEX conversations_of_origin ON conversations (origin_key)
            WHERE origin_key IS NOT NULL;
        CREATE INDEX conversations_by_time ON conversations (created_at);
        """
    )


def m_evidence(connection: sqlite_utils.Database) -> None:
    """What a reward model said of a ranking before it learned from it; which turns were not blind.

    ``revealed_after`` is the id of the newest ranking when somebody looked up who wrote the
    replies: later rankings of the turn are not blind. Null: nobody did.
    """
    connection.execute("ALTER TABLE turns ADD COLUMN revealed_after INTEGER")
    connection.execute(
        """
        CREATE TABLE predictions (
            ranking_id INTEGER PRIMARY KEY REFERENCES rankings (id) ON DELETE CASCADE,
            version TEXT NOT NULL,
            right_pairs INTEGER NOT NULL CHECK (right_pairs BETWEEN 0 AND pairs),
            pairs INTEGER NOT NULL CHECK (pairs >= 1),
            created_at TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    connection.execute(
        "CREATE INDEX blind_replies ON replies (turn_id) WHERE slot_type IN ('duel', 'replay')"
    )


_PEOPLE = """
CREATE TABLE people (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    role TEXT NOT NULL CHECK (role IN ('reader', 'rater', 'trainer', 'admin')),
    password_hash TEXT,
    created_at TEXT NOT NULL
) STRICT;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    token_sha256 TEXT NOT NULL UNIQUE CHECK (length(token_sha256) = 64),
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    revoked_at TEXT
) STRICT;
CREATE INDEX sessions_of_person ON sessions (person_id);
CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    key_sha256 TEXT NOT NULL UNIQUE CHECK (length(key_sha256) = 64),
    created_at TEXT NOT NULL,
    last_used_at TEXT,
    revoked_at TEXT
) STRICT;
CREATE INDEX api_keys_of_person ON api_keys (person_id);
CREATE TABLE audit_log ( -- outlives the people it names, so no foreign key
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER,
    action TEXT NOT NULL,
    detail TEXT NOT NULL,
    created_at TEXT NOT NULL,
    previous_sha256 TEXT NOT NULL,
    sha256 TEXT NOT NULL UNIQUE CHECK (length(sha256) = 64)
) STRICT;
CREATE TRIGGER audit_log_never_changes BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE (ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_log_never_shrinks BEFORE DELETE ON audit_log
BEGIN SELECT RAISE (ABORT, 'the audit log is append-only'); END;
CREATE TABLE state (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    changed_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_CHATS = """
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    system_prompt TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX conversations_of_person ON conversations (person_id);
CREATE TABLE turns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    parent_reply_id INTEGER REFERENCES replies (id) ON DELETE CASCADE,
    text TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX turns_of_conversation ON turns (conversation_id);
CREATE INDEX turns_of_parent ON turns (parent_reply_id);
CREATE TABLE replies (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    position INTEGER NOT NULL CHECK (position BETWEEN 0 AND 63),
    text TEXT NOT NULL,
    text_sha256 TEXT NOT NULL CHECK (length(text_sha256) = 64),
    token_ids BLOB NOT NULL CHECK (length(token_ids) % 4 = 0), -- little-endian uint32
    logprobs BLOB NOT NULL CHECK (length(logprobs) % 4 = 0), -- little-endian float32
    version TEXT NOT NULL,
    seed INTEGER NOT NULL,
    sampling TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('streaming', 'complete', 'interrupted', 'cancelled')),
    finish_reason TEXT CHECK (finish_reason IN ('stop', 'length', 'cancelled', 'interrupted')),
    slot_type TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (turn_id, position),
    UNIQUE (turn_id, id),
    CHECK ((state = 'streaming') = (finish_reason IS NULL))
) STRICT;
CREATE INDEX streaming_replies ON replies (id) WHERE state = 'streaming';
"""

_RATINGS = """
CREATE TABLE rankings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    strength INTEGER CHECK (strength BETWEEN 1 AND 5),
    comment TEXT NOT NULL,
    all_bad INTEGER NOT NULL CHECK (all_bad IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN ('active', 'superseded', 'withdrawn')),
    revision_of INTEGER REFERENCES rankings (id) ON DELETE SET NULL,
    idempotency_key TEXT CHECK (length(idempotency_key) BETWEEN 1 AND 200),
    body_sha256 TEXT NOT NULL CHECK (length(body_sha256) = 64),
    created_at TEXT NOT NULL,
    UNIQUE (person_id, idempotency_key),
    UNIQUE (turn_id, id)
) STRICT;
CREATE UNIQUE INDEX one_active_ranking ON rankings (turn_id, person_id) WHERE state = 'active';
CREATE INDEX revisions ON rankings (revision_of);
CREATE TABLE ranking_entries (
    ranking_id INTEGER NOT NULL,
    turn_id INTEGER NOT NULL,
    reply_id INTEGER NOT NULL,
    rank INTEGER NOT NULL CHECK (rank BETWEEN 1 AND 64),
    PRIMARY KEY (ranking_id, reply_id),
    -- both through the turn, so that a reply of another turn cannot be ranked
    FOREIGN KEY (turn_id, ranking_id) REFERENCES rankings (turn_id, id) ON DELETE CASCADE,
    FOREIGN KEY (turn_id, reply_id) REFERENCES replies (turn_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_of_reply ON ranking_entries (turn_id, reply_id);
CREATE INDEX entries_of_ranking ON ranking_entries (turn_id, ranking_id);
CREATE TABLE labels (
    reply_id INTEGER NOT NULL REFERENCES replies (id) ON DELETE CASCADE,
    person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    label TEXT NOT NULL CHECK (length(label) BETWEEN 1 AND 40),
    value INTEGER NOT NULL CHECK (value IN (0, 1)),
    created_at TEXT NOT NULL,
    PRIMARY KEY (reply_id, person_id, label)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_of_person ON labels (person_id);
CREATE TABLE demonstrations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    turn_id INTEGER REFERENCES turns (id) ON DELETE CASCADE,
    person_id INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    messages TEXT, -- only where no turn holds the conversation
    text TEXT NOT NULL,
    created_at TEXT NOT NULL,
    CHECK ((turn_id IS NULL) = (messages IS NOT NULL))
) STRICT;
CREATE INDEX demonstrations_of_turn ON demonstrations (turn_id);
CREATE INDEX demonstrations_of_person ON demonstrations (person_id);
CREATE TABLE prompts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL,
    text_sha256 TEXT NOT NULL UNIQUE CHECK (length(text_sha256) = 64),
    system_prompt TEXT NOT NULL,
    tags TEXT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'held_out')),
    created_at TEXT NOT NULL
) STRICT;
"""

_TRAINING = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL CHECK (
        state IN ('queued', 'running', 'succeeded', 'skipped', 'failed', 'cancelled')),
    stages TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    owner TEXT,
    pid INTEGER,
    boot_id TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    heartbeat INTEGER NOT NULL DEFAULT 0,
    stage TEXT,
    step INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0,
    eta_seconds REAL,
    message TEXT NOT NULL DEFAULT '',
    last_ranking_id INTEGER NOT NULL,
    settings TEXT NOT NULL,
    dataset_hash TEXT,
    result_version TEXT REFERENCES versions (name),
    created_at TEXT NOT NULL,
    started_at TEXT,
    ended_at TEXT
) STRICT;
CREATE UNIQUE INDEX one_open_run ON runs (state IN ('queued', 'running'))
    WHERE state IN ('queued', 'running');
CREATE TABLE run_metrics (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    stage TEXT NOT NULL,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL, -- null stands for not a number
    UNIQUE (run_id, stage, step, name)
) STRICT;
CREATE TABLE run_samples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    stage TEXT NOT NULL,
    step INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    reply TEXT NOT NULL,
    score REAL
) STRICT;
CREATE INDEX samples_of_run ON run_samples (run_id);
CREATE TABLE run_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('info', 'gate_passed', 'gate_failed', 'error')),
    text TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_run ON run_events (run_id);
CREATE TABLE versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE CHECK (name GLOB 'v[0-9]*' AND substr(name, 2) NOT GLOB '*[^0-9]*'),
    parent TEXT REFERENCES versions (name),
    state TEXT NOT NULL CHECK (
        state IN ('candidate', 'ready', 'rejected', 'quarantined', 'retired')),
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    manifest_sha256 TEXT NOT NULL CHECK ( -- empty for the bare base, which has no files
        manifest_sha256 = ''
        OR (length(manifest_sha256) = 64 AND manifest_sha256 NOT GLOB '*[^0-9a-f]*')),
    metrics TEXT NOT NULL,
    note TEXT NOT NULL,
    erased_rankings INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX versions_of_run ON versions (run_id);
CREATE TABLE aliases (
    alias TEXT PRIMARY KEY CHECK (length(alias) BETWEEN 1 AND 40),
    version TEXT NOT NULL REFERENCES versions (name),
    changed_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_CHOSEN_REPLIES = (
    "candidate INTEGER CHECK (candidate BETWEEN 0 AND 63)",  # null: that of the position
    "score REAL",
    "propensity REAL CHECK (propensity > 0.0 AND propensity <= 1.0)",
)
_CHOICES = """
CREATE TABLE choices (
    turn_id INTEGER PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
    policy TEXT NOT NULL CHECK (length(policy) BETWEEN 1 AND 40),
    candidates INTEGER NOT NULL CHECK (candidates BETWEEN 1 AND 64),
    version TEXT NOT NULL, -- whose reward model gave the scores; empty where none did
    scores TEXT NOT NULL, -- a JSON list, by candidate
    note TEXT NOT NULL
) STRICT, WITHOUT ROWID
"""

MIGRATIONS: tuple[Migration, ...] = (
    m001_first_schema,
    m002_terms_of_samples,
    m003_choices,
    m004_origin_of_conversations,
    m005_invitations,
    m_words_of_ratings,
    m_filters_of_ratings,
    m_imports,
    m_rating_queue,
    m_evidence,
)


def schema_version(connection: sqlite_utils.Database) -> int:
    """How many migrations the file has had."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def refuse_newer(connection: sqlite_utils.Database, path: Path) -> None:
    """Raise StorageError when a newer program has migrated the file."""
    version = schema_version(connection)
    if version > len(MIGRATIONS):
        raise StorageError(
            f"{path} has schema {version}, but this program knows {len(MIGRATIONS)}: a newer "
            "chatrlhf wrote it; nothing was changed; update this program"
        )


def migrate(connection: sqlite_utils.Database, path: Path) -> int:
    """Bring the file to the newest schema, one transaction a step; returns how many steps it took.

    The caller holds the file lock. A file that has tables is first copied to ``backups/``.

    Raises:
        StorageError: a newer program or another one wrote the file, or a step left stray rows.
    """
    refuse_newer(connection, path)
    version = schema_version(connection)
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StorageError(f"{path} is a database of another program; choose another data folder")
    if version == len(MIGRATIONS):
        return 0
    if version > 0:
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%fZ")
        name = f"{path.stem}-before-schema-{version + 1}-{moment}{path.suffix}"
        write_backup(connection, path.parent / "backups" / name)
    connection.execute("PRAGMA foreign_keys = OFF")  # a step may rebuild a table others refer to
    try:
        for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
            _apply(connection, number, step)
    finally:
        connection.execute("PRAGMA foreign_keys = ON")
    return len(MIGRATIONS) - version


def _apply(connection: sqlite_utils.Database, number: int, step: Migration) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        step(connection)
        strays = connection.execute("PRAGMA foreign_key_check").fetchall()
        if strays:
            raise StorageError(
                f"schema step {number} ({step.__name__}) would leave {len(strays)} stray rows; "
                "the database is unchanged; please report this"
            )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.conn.in_transaction:
            connection.execute("ROLLBACK")
        raise
