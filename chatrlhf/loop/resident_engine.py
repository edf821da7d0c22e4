"""Requests that name versions: each is brought into memory, and stays until the request has it."""

from __future__ import annotations

from chatrlhf.engine.requests import ReplyRequest
from chatrlhf.errors import NotFoundError, OverloadedError
from chatrlhf.loop.live_version import LiveVersion
from chatrlhf.loop.ports import ReplyEngine, ReplyStream

# Only a version that comes into memory in just that moment can push one out.
_TRIES = 5


class ResidentEngine:
    """The engine, with any version of the database as if it were always in memory. Thread safe."""

    def __init__(self, engine: ReplyEngine, live: LiveVersion) -> None:
        self._engine = engine
        self._live = live

    @property
    def live_version(self) -> str:
        """Name of the version that new requests get."""
        return self._engine.live_version

    def submit(self, request: ReplyRequest) -> ReplyStream:
        """Queue a request once its versions are in memory.

        Raises:
            NotFoundError: there is no such version.
            ConflictError, VersionError: it cannot be used.
            OverloadedError: the engine is full, or the versions do not stay in memory together.
            BadInputError, ContextOverflowError: the request can never work.
        """
        names = dict.fromkeys(request.versions)
        for _ in range(_TRIES):
            for name in names:
                self._live.ensure_resident(name)
            try:
                return self._engine.submit(request)
            except NotFoundError:
                continue  # another version took its room since
        raise OverloadedError(
            f"{' and '.join(names)} cannot be kept in memory: others take their room. Try again "
            "when running replies have ended, or raise engine.resident_versions."
        )
