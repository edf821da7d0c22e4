from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.conversations import NewReply, create_conversation, create_turn, finish_reply, get_turn
from storage.database import Database, open_database
from storage.people import ensure_local_person
from storage.records import Conversation, Person, Turn

ROOT = Path(__file__).resolve().parents[2]
ENDINGS = {"complete": "stop", "cancelled": "cancelled", "interrupted": "interrupted"}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path / "data" / "chatrlhf.db")
    yield database
    database.close()


@pytest.fixture
def me(db: Database) -> Person:
    return ensure_local_person(db)


@pytest.fixture
def chat(db: Database, me: Person) -> Conversation:
    return create_conversation(db, me.id)


@pytest.fixture
def make_turn(db: Database, chat: Conversation) -> Callable[..., Turn]:
    """A turn whose replies have the given states; reply texts are "reply 0", "reply 1" ..."""

    def make(
        states: tuple[str, ...] = ("complete",) * 4,
        parent: int | None = None,
        text: str = "Hello",
        conversation_id: int | None = None,
    ) -> Turn:
        rows = [NewReply(place, "v0", place, {}) for place in range(len(states))]
        turn = create_turn(db, conversation_id or chat.id, text, parent, rows)
        for reply, state in zip(turn.replies, states, strict=True):
            if state != "streaming":
                finish_reply(
                    db,
                    reply.id,
                    text=f"reply {reply.position}",
                    token_ids=[7, 8],
                    logprobs=[-0.5, -0.25],
                    finish_reason=ENDINGS[state],
                    state=state,
                )
        return get_turn(db, turn.id)

    return make


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``python -c script arguments`` with the project importable; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def shared_db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """For tests that only read, many times."""
    database = open_database(tmp_path_factory.mktemp("shared") / "chatrlhf.db")
    yield database
    database.close()
