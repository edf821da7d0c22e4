from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.database import Database, open_database
from storage.people import ensure_local_person


@pytest.fixture
def new_db(tmp_path: Path) -> Iterator[Callable[[], Database]]:
    made: list[Database] = []

    def make() -> Database:
        made.append(open_database(tmp_path / f"{len(made)}" / "chatrlhf.db"))
        ensure_local_person(made[-1])
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def db(new_db: Callable[[], Database]) -> Database:
    return new_db()
