"""The rating queue: gives people items to rate, and has replies made for them.

What is ready is handed out from rows. Where nothing is ready, the replies are begun at once and the
person watches them come; `replies_ahead.py` sees to it that this is rare.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from chatrlhf.engine.requests import Sampling
from chatrlhf.errors import BadInputError, ConflictError, LoadingError
from chatrlhf.loop.live_turn import LiveTurn
from chatrlhf.loop.turn_events import NewTurn
from chatrlhf.loop.turns import Turns
from chatrlhf.settings import Settings
from storage import conversations, queue, queue_items, runs
from storage.database import Database
from storage.queue import Terms
from storage.records import Assigned, Prompt

logger = logging.getLogger(__name__)

_STATE_KEY = "queue"
_SEED_BITS = 63
_FEWEST_REPLIES = 2  # one reply has no order

# ready: a turn to rate; held: others have all that is left; loading: the model is not there yet.
State = Literal["ready", "held", "loading", "done"]


@dataclass(frozen=True)
class Choices:
    """What a team sets for its queue: replies made ahead, and people for each prompt."""

    ahead: int
    overlap: int


@dataclass(frozen=True)
class NextItem:
    """What a person gets next; ``remaining`` prompts are left for them, this one included."""

    state: State
    remaining: int
    assigned: Assigned | None = None
    message: str = ""


class RatingQueue:
    """Hands out items and starts the replies to prompts. Thread safe.

    ``turns`` gives the maker of turns, or raises LoadingError.
    """

    def __init__(
        self,
        db: Database,
        settings: Settings,
        turns: Callable[[], Turns],
        rng: random.Random | None = None,
    ) -> None:
        self._db = db
        self._settings = settings
        self._turns = turns
        self._rng = rng or random.SystemRandom()
        self._unanswerable: set[int] = set()
        self.making = threading.RLock()  # one item at a time is made or cleared away
        self.on_take: Callable[[], None] = lambda: None

    # --- settings -----------------------------------------------------------------------------

    @property
    def choices(self) -> Choices:
        """What holds now: as set on the page, else in the settings."""
        defaults = self._settings.queue
        stored = runs.get_state(self._db, _STATE_KEY) or {}
        return Choices(stored.get("ahead", defaults.ahead), stored.get("overlap", defaults.overlap))

    def choose(self, *, ahead: int | None = None, overlap: int | None = None) -> Choices:
        """Set what is given; what holds from now on."""
        before = self.choices
        made = Choices(
            before.ahead if ahead is None else ahead,
            before.overlap if overlap is None else overlap,
        )
        runs.set_state(self._db, _STATE_KEY, {"ahead": made.ahead, "overlap": made.overlap})
        self.on_take()
        return made

    @property
    def terms(self) -> Terms:
        """How items are handed out."""
        settings = self._settings.queue
        return Terms(self.choices.overlap, settings.lease_minutes, settings.repeat_share)

    # --- handing out --------------------------------------------------------------------------

    def next_item(self, person_id: int) -> NextItem:
        """What the person is to rate: the same until they rate or skip it.

        Raises:
            OverloadedError: replies would have to be made, and too many wait for the engine.
        """
        terms = self.terms
        assigned = queue.take(self._db, person_id, terms, self._rng)
        loading = ""
        if assigned is None:
            try:
                assigned = self._made_now(person_id, terms)
            except LoadingError as error:
                loading = str(error)
        left = queue.remaining(self._db, person_id, terms)
        if assigned is not None:
            self.on_take()
            # A hidden repeat is no prompt that is left, yet it must not show.
            return NextItem("ready", max(left, 1), assigned)
        if loading:
            return NextItem("loading", left, message=loading)
        return NextItem("held" if left else "done", left)

    def _made_now(self, person_id: int, terms: Terms) -> Assigned | None:
        """An item whose replies have just been begun; None when there is no prompt for it."""
        with self.making:
            for prompt in queue_items.prompts_to_make(self._db, person_id):
                if self.make(prompt) is None:
                    continue
                assigned = queue.take(self._db, person_id, terms, self._rng, prompt.id)
                if assigned is not None:
                    return assigned
        return None

    # --- making -------------------------------------------------------------------------------

    def can_answer(self, prompt: Prompt) -> bool:
        """Whether the model has not refused the prompt since the server started."""
        return prompt.id not in self._unanswerable

    def make(self, prompt: Prompt) -> LiveTurn | None:
        """Begin the replies to a prompt; None when it cannot be answered or has been changed.

        Raises:
            OverloadedError: too many wait for the engine.
            LoadingError: there is no engine yet.
        """
        turns = self._turns()
        if not self.can_answer(prompt):
            return None
        with self.making:
            conversation = queue_items.new_item_conversation(self._db, prompt)
            try:
                live = turns.start(conversation.id, self._wanted(prompt))
            except BaseException as error:
                conversations.delete_conversation(self._db, conversation.id)
                if not isinstance(error, BadInputError):
                    raise
                logger.warning("prompt %d cannot be answered: %s", prompt.id, error)
                self._unanswerable.add(prompt.id)
                return None
            try:
                queue_items.add_item(self._db, live.turn.id, prompt.id)
            except ConflictError as error:  # its words have changed; what was begun is cleared away
                logger.info("prompt %d gets no replies now: %s", prompt.id, error)
                turns.cancel(live.turn.id)
                return None
            return live

    def refused(self, prompt: Prompt) -> None:
        """Take note that the engine refused the prompt after all."""
        self._unanswerable.add(prompt.id)

    def _wanted(self, prompt: Prompt) -> NewTurn:
        chat = self._settings.chat
        replies = max(chat.replies, _FEWEST_REPLIES)
        return NewTurn(
            text=prompt.text,
            replies=replies,
            seed=secrets.randbits(_SEED_BITS),
            sampling=Sampling(
                temperature=chat.temperature,
                top_p=chat.top_p,
                top_k=chat.top_k,
                max_new_tokens=chat.max_new_tokens,
            ),
            from_root=True,
            candidates=chat.candidates if chat.candidates > replies else 0,
            choose=chat.choose,
        )
