"""Keeps the engine's live version equal to the database's alias ``live``.

The trainer publishes by rows; this watcher sees the alias move, has the engine load the version
beside the one that serves, and flips. A version that cannot be loaded is quarantined, which moves
the alias to a good one, so that a broken adapter never takes the chat down.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from chatrlhf.errors import ConflictError, ModelError, VersionError
from chatrlhf.loop.background import BackgroundLoop
from chatrlhf.loop.ports import VersionedEngine
from storage import runs, versions
from storage.database import Database

logger = logging.getLogger(__name__)

Verify = Callable[[str], Path]

_POLL_SECONDS = 1.0


class LiveVersion:
    """Follows, moves and repairs the alias ``live``. Thread safe.

    ``verify`` checks the files of a version and returns their folder, or raises VersionError.
    """

    def __init__(
        self,
        db: Database,
        engine: VersionedEngine,
        verify: Verify,
        *,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        self._db = db
        self._engine = engine
        self._verify = verify
        self._serving: str | None = None
        self._lock = threading.RLock()
        self._loop = BackgroundLoop("live-version", self._look, poll_seconds)

    def start(self) -> None:
        """Serve the alias' version, or another good one, and watch from then on.

        Raises:
            ModelError: no version can be loaded.
        """
        self.follow_alias()
        self._loop.start()

    def stop(self) -> None:
        """Stop watching."""
        self._loop.stop()

    def poke(self) -> None:
        """Look at the alias now instead of at the next poll."""
        self._loop.poke()

    def follow_alias(self) -> None:
        """Bring the engine to the version that the alias names.

        Raises:
            ModelError: none is left that can be loaded.
            OverloadedError: no room in memory is free for it now.
        """
        with self._lock:
            while True:
                wanted = versions.get_alias(self._db, "live")
                if wanted is None:
                    raise ModelError(
                        "No adapter version can be loaded. Start again to begin with a fresh one, "
                        "or restore a backup."
                    )
                if wanted == self._serving:
                    return
                try:
                    self.ensure_resident(wanted)
                except VersionError:
                    continue  # it is quarantined, and the alias names another
                self._engine.set_live(wanted)
                self._serving = wanted

    def ensure_resident(self, name: str) -> None:
        """Have a version in memory, for a request that names it.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: it was quarantined or retired.
            VersionError: its files are corrupt or do not fit the base; it is quarantined now.
        """
        with self._lock:
            version = versions.get_version(self._db, name)
            if version.state in ("quarantined", "retired"):
                raise ConflictError(f"{name} is {version.state} and cannot be used any more.")
            if name in self._engine.resident_versions():
                return
            try:
                self._engine.load_version(name, self._verify(name))
            except VersionError as error:
                self._quarantine(name, version.run_id, error)
                raise

    def promote(self, name: str, person: str) -> None:
        """Make a version live, once it has proved that it loads.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: the version is not ready to go live.
            VersionError: its files are corrupt; it is quarantined.
        """
        with self._lock:
            self.ensure_resident(name)
            versions.promote(self._db, name, person)
            self.follow_alias()

    def roll_back(self, person: str) -> str:
        """Make the previous version live again; returns the name of what is live then.

        Raises:
            ConflictError: there is no previous version.
        """
        with self._lock:
            versions.rollback(self._db, person)
            self.follow_alias()
            return str(self._serving)

    def _look(self) -> bool:
        self.follow_alias()
        return False

    def _quarantine(self, name: str, run_id: int | None, error: VersionError) -> None:
        now_live = versions.quarantine(self._db, name, str(error))
        text = f"{name} cannot be used and is quarantined; {now_live} is live. {error}"
        logger.error("%s", text)
        if run_id is not None:
            runs.add_event(self._db, run_id, "error", text)
