"""Processes that are killed at random moments while they write."""

from __future__ import annotations

import random
import time
from pathlib import Path

from storage.backup import verify_backup
from storage.conversations import interrupt_streaming
from storage.database import open_database
from storage.rankings import get_ranking, list_rankings

TRIALS = 10
# Prints the id of each ranking once the call that saves it has returned.
WRITER = """
import sys
from storage.conversations import NewReply, create_conversation, create_turn, finish_reply
from storage.database import open_database
from storage.people import ensure_local_person
from storage.rankings import save_ranking
db = open_database(sys.argv[1])
me = ensure_local_person(db)
chat = create_conversation(db, me.id)
while True:
    rows = [NewReply(place, "v0", 0, {}) for place in range(4)]
    turn = create_turn(db, chat.id, "Hello", None, rows)
    for reply in turn.replies:
        finish_reply(db, reply.id, text="x" * 3000, token_ids=[1] * 500, logprobs=[0.0] * 500,
                     finish_reason="stop", state="complete")
    for _ in range(3):
        ranks = {reply.id: reply.position + 1 for reply in turn.replies}
        print(save_ranking(db, turn.id, me.id, ranks).id, flush=True)
"""


def test_kill_9_loses_nothing_acknowledged_and_leaves_nothing_half(
    tmp_path: Path, start_python
) -> None:
    path = tmp_path / "x.db"
    acknowledged: set[int] = set()
    moments = random.Random(20)
    for _ in range(TRIALS):
        writer = start_python(WRITER, path)
        acknowledged.add(int(writer.stdout.readline()))
        time.sleep(moments.uniform(0, 0.15))
        writer.kill()
        rest, errors = writer.communicate()
        assert "Traceback" not in errors
        acknowledged |= {int(line) for line in rest.splitlines(keepends=True) if line[-1] == "\n"}

        db = open_database(path)
        verify_backup(path)  # every page, every foreign key
        stored = {ranking.id for ranking in list_rankings(db, state=None, limit=10_000)}
        assert acknowledged <= stored
        assert all(len(get_ranking(db, ranking_id).ranks) == 4 for ranking_id in stored)
        counts = db.rows("SELECT count(*) AS n FROM replies GROUP BY turn_id")
        assert {row["n"] for row in counts} == {4}
        turns = db.rows("SELECT count(*) AS n FROM turns")[0]["n"]
        assert len(counts) == turns
        active = db.rows(
            "SELECT count(*) AS n FROM rankings WHERE state = 'active' GROUP BY turn_id"
        )
        assert {row["n"] for row in active} == {1}
        assert interrupt_streaming(db) <= 4
        db.close()
    assert len(acknowledged) >= TRIALS


def test_a_process_killed_while_it_migrates_leaves_a_file_that_opens(
    tmp_path: Path, start_python
) -> None:
    script = (
        "import os, signal, sys; from storage import migrations\n"
        "def dies(connection):\n"
        "    connection.execute('CREATE TABLE half (a TEXT) STRICT')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "migrations.MIGRATIONS = (*migrations.MIGRATIONS, dies)\n"
        "from storage.database import open_database; open_database(sys.argv[1])"
    )
    path = tmp_path / "x.db"
    process = start_python(script, path)
    process.wait(timeout=60)
    assert process.returncode == -9
    db = open_database(path)
    assert db.rows("SELECT name FROM sqlite_schema WHERE name = 'half'") == []
    verify_backup(path)
    db.close()
