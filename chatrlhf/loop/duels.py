"""Blind duels: in some turns the replies mix the live version and an older one.

Which turns, against which version and who stands where is drawn from the turn's seed. A duel never
costs the replies: where the older version cannot be had, the turn is an ordinary one.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from chatrlhf.errors import BadInputError, ChatRLHFError, ConflictError
from chatrlhf.loop.live_version import LiveVersion
from chatrlhf.loop.preferences import version_number
from storage import versions
from storage.database import Database

logger = logging.getLogger(__name__)

# How often the opponent is the version that was live before, rather than any older one.
_PREVIOUS_SHARE = 0.5


class Duels:
    """Says which versions answer a turn. Thread safe.

    ``share`` of the turns are duels; ``live_version`` names the version that is live now.
    """

    def __init__(
        self, db: Database, live: LiveVersion, live_version: Callable[[], str], share: float
    ) -> None:
        self._db = db
        self._live = live
        self._live_version = live_version
        self.share = share

    def versions_of(
        self, replies: int, seed: int, *, wanted: bool | None = None
    ) -> tuple[str, ...]:
        """A version for each reply, in shown order; empty for an ordinary turn.

        Args:
            replies: how many are shown.
            seed: of the turn.
            wanted: True asks for a duel, False for none, None leaves it to chance.

        Raises:
            BadInputError: a duel is wanted of a single reply.
            ConflictError: a duel is wanted, but there is no older version.
        """
        chance = random.Random(f"duel {seed}")
        if wanted is False or (wanted is None and chance.random() >= self.share):
            return ()
        if replies < 2:
            if wanted:
                raise BadInputError("A duel compares replies: ask for two at least.")
            return ()
        live = self._live_version()
        older = self._opponent(live, chance)
        if older is None:
            if wanted:
                raise ConflictError(
                    f"There is no version older than {live} that can answer. Duels begin when a "
                    "round has made the next one."
                )
            return ()
        try:
            return self.between(live, older, replies, seed)
        except ChatRLHFError as error:
            if wanted:
                raise
            logger.warning("no duel of %s and %s: %s", live, older, error)
            return ()

    def between(self, live: str, older: str, replies: int, seed: int) -> tuple[str, ...]:
        """Both versions in memory, half of the replies each, in random order.

        Of an odd number of replies chance gives one version more.

        Raises:
            NotFoundError, ConflictError, VersionError, OverloadedError: one cannot be had.
        """
        for name in (live, older):
            self._live.ensure_resident(name)
        chance = random.Random(f"places {seed}")
        one, other = chance.sample((live, older), 2)
        order = [one, other] * (replies // 2) + [one] * (replies % 2)
        chance.shuffle(order)
        return tuple(order)

    def _opponent(self, live: str, chance: random.Random) -> str | None:
        """An older version that can answer; half the time the one that was live before."""
        usable = [
            version.name
            for version in versions.list_versions(self._db)
            if version.state == "ready" and version_number(version.name) < version_number(live)
        ]
        if not usable:
            return None
        previous = versions.get_alias(self._db, "previous")
        if previous in usable and chance.random() < _PREVIOUS_SHARE:
            return previous
        return chance.choice(usable)
