"""A request that names versions gets them, whatever comes into memory beside it."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine

from chatrlhf.engine.requests import ChatMessage, ReplyRequest, Sampling
from chatrlhf.errors import ConflictError, NotFoundError, OverloadedError
from chatrlhf.loop.live_version import LiveVersion
from chatrlhf.loop.resident_engine import ResidentEngine
from storage import versions


class Crowded(FakeEngine):
    """An engine with room for ``room`` versions; ``thief`` comes in just before a request."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.thieves: list[str] = []

    def load_version(self, name, folder):
        while len(self.resident) >= self.room:
            del self.resident[next(iter(self.resident))]
        super().load_version(name, folder)

    def submit(self, request):
        if self.thieves:
            self.load_version(self.thieves.pop(), None)
        return super().submit(request)


@pytest.fixture
def serve(db, tmp_path):
    for name in ("v0", "v1", "v2", "v3"):
        versions.register_version(db, name, None, None, "", {}, "")

    def serve(engine):
        return ResidentEngine(engine, LiveVersion(db, engine, lambda name: tmp_path / name))

    return serve


def request(*names):
    return ReplyRequest((ChatMessage("user", "Hi"),), len(names), 1, Sampling(), names)


def test_a_version_that_is_not_in_memory_is_loaded(serve):
    engine = Crowded(room=2)
    serve(engine).submit(request("v1", "v2", "v1"))
    assert set(engine.resident) == {"v1", "v2"}
    assert engine.requests == [request("v1", "v2", "v1")]


def test_a_version_that_another_pushed_out_is_loaded_again(serve):
    engine = Crowded(room=1)
    engine.thieves = ["v2", "v3"]
    serve(engine).submit(request("v1"))
    assert set(engine.resident) == {"v1"}
    assert len(engine.requests) == 1


def test_loading_the_second_version_may_push_out_the_first(serve):
    engine = Crowded(room=2)
    for name in ("v1", "v3"):
        engine.load_version(name, None)
    serve(engine).submit(request("v1", "v2"))
    assert set(engine.resident) == {"v1", "v2"}


def test_versions_that_never_fit_together_are_refused_in_words(serve):
    with pytest.raises(OverloadedError, match="v1 and v2 cannot be kept in memory"):
        serve(Crowded(room=1)).submit(request("v1", "v2"))


def test_unknown_and_retired_versions_are_refused_and_nothing_is_asked(db, serve):
    engine = Crowded(room=2)
    versions.retire(db, "v2")
    with pytest.raises(NotFoundError, match="v9"):
        serve(engine).submit(request("v9"))
    with pytest.raises(ConflictError, match="retired"):
        serve(engine).submit(request("v2"))
    assert engine.requests == []


def test_other_errors_of_the_engine_pass_and_are_not_tried_again(serve):
    engine = Crowded(room=2)
    engine.refuse = OverloadedError("Full.")
    with pytest.raises(OverloadedError, match="Full"):
        serve(engine).submit(request("v1"))
    assert set(engine.resident) == {"v1"}
