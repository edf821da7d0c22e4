"""Best of N: a turn whose candidates are written unseen, scored, and shown in part.

What goes wrong never costs the replies: candidates that cannot be scored are shown at random, and
the turn says why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from chatrlhf.engine.choose import Candidate, choose
from chatrlhf.engine.requests import ChatMessage, Finished, ReplyScore
from chatrlhf.errors import BadInputError, ChatRLHFError
from chatrlhf.loop.asking import judge, why_unscored
from chatrlhf.loop.rewards import Rewards
from chatrlhf.loop.turn_events import Doubt, NewTurn
from chatrlhf.settings import ChoicePolicy
from storage.records import Choice, Chosen
from storage.values import generated_text

logger = logging.getLogger(__name__)

AS_DRAWN = "All replies are shown as they were drawn."
AT_RANDOM = "The replies shown were picked at random."


@dataclass(frozen=True)
class Plan:
    """How many candidates a turn gets, and what is stored of it; no ``choice``: none was asked."""

    candidates: int
    choice: Choice | None = None

    def chooses(self, wanted: NewTurn) -> bool:
        """Whether candidates are written unseen: more than are shown, or to see whether to ask."""
        return self.candidates > wanted.replies or wanted.doubt is not None


@dataclass(frozen=True)
class Chosens:
    """The candidates that are shown, in shown order, and what is stored of the choice."""

    shown: tuple[tuple[Finished, Chosen], ...]
    choice: Choice


@dataclass
class Choosing:
    """The candidates of one turn as they come in; ``shown`` of them are to be shown.

    With a ``doubt`` the best one is shown alone where its scores leave none.
    """

    policy: ChoicePolicy
    candidates: int
    shown: int
    seed: int
    messages: tuple[ChatMessage, ...]
    doubt: Doubt | None = None
    version: str = ""
    finished: dict[int, Finished] = field(default_factory=dict)

    @property
    def is_cut(self) -> bool:
        """Whether a person stopped the writing before all candidates were done."""
        return any(one.finish_reason == "cancelled" for one in self.finished.values())

    @property
    def is_broken(self) -> bool:
        """Whether some candidate has no end of its own: nothing can be chosen then."""
        ends = [one.finish_reason for one in self.finished.values()]
        return len(ends) < self.candidates or "interrupted" in ends

    def chosen(self, rewards: Rewards) -> Chosens:
        """Score all candidates and choose; without scores, choose at random and say why."""
        if self.is_cut:
            note = f"Stopped before all {self.candidates} candidates were written. {AT_RANDOM}"
            if self.doubt is not None:
                self.shown = 1
            return self._unscored(note)
        rows = [self.finished[row] for row in sorted(self.finished)]
        try:
            found = self._scores(rewards, rows)
        except ChatRLHFError as error:
            logger.warning("candidates could not be scored: %s", error)
            return self._unscored(f"The candidates could not be scored: {error} {AT_RANDOM}")
        except Exception as error:
            logger.exception("candidates could not be scored")
            reason = f"{type(error).__name__}; the log has the details"
            return self._unscored(f"The candidates could not be scored ({reason}). {AT_RANDOM}")
        scores = [one.total for one in found]
        policy, note = self.policy, ""
        if self.doubt is not None:
            verdict = judge(self.doubt, found, self.seed)
            note = verdict.note
            if not verdict.asks:
                policy, self.shown = "best", 1
        choice = Choice(self.policy, self.candidates, self.version, tuple(scores), note)
        return Chosens(self._choose(policy, rows, scores), choice)

    def _scores(self, rewards: Rewards, rows: Sequence[Finished]) -> Sequence[ReplyScore]:
        # As they are stored, since that is what reward models are trained on.
        texts = [generated_text(one.text) for one in rows]
        ended = [one.finish_reason == "stop" for one in rows]
        found = rewards.score(self.version, self.messages, texts, ended)
        if not all(math.isfinite(one.total) for one in found.scores):
            raise BadInputError(f"The reward model of {self.version} gives no number.")
        return found.scores

    def _unscored(self, note: str) -> Chosens:
        """Random ones; of those that were cut only as many as are missing, the longest first."""
        whole = [one for one in self.finished.values() if one.finish_reason != "cancelled"]
        cut = [one for one in self.finished.values() if one.finish_reason == "cancelled"]
        cut.sort(key=lambda one: (-len(one.token_ids), one.row))
        rows = sorted(whole, key=lambda one: one.row) + cut[: max(self.shown - len(whole), 0)]
        return Chosens(
            self._choose("random", rows, None), Choice(self.policy, self.candidates, note=note)
        )

    def _choose(
        self, policy: ChoicePolicy, rows: Sequence[Finished], scores: Sequence[float] | None
    ) -> tuple[tuple[Finished, Chosen], ...]:
        known = scores or [0.0] * len(rows)
        score_of = {one.row: score for one, score in zip(rows, known, strict=True)}
        candidates = [Candidate(one.row, one.text, score_of[one.row]) for one in rows]
        return tuple(
            (
                self.finished[one.row],
                Chosen(
                    candidate=one.row,
                    slot_type=one.slot_type,
                    propensity=one.propensity,
                    score=None if scores is None else score_of[one.row],
                ),
            )
            for one in choose(policy, candidates, self.shown, self.seed)
        )


def plan_of(wanted: NewTurn, rewards: Rewards | None, version: str, note: str = "") -> Plan:
    """How many candidates a turn gets that is answered by ``version``.

    A ``note`` on how it came to be asked or not is stored with it.

    Raises:
        BadInputError: fewer candidates than replies are asked for, or candidates of a duel.
    """
    drawn = Choice(wanted.choose, wanted.replies, note=note) if note else None
    if not wanted.candidates:
        return Plan(wanted.replies, drawn)
    if wanted.candidates < wanted.replies:
        raise BadInputError(
            f"candidates is {wanted.candidates}, fewer than the {wanted.replies} replies to be "
            "shown. Ask for as many at least, or leave it out."
        )
    if wanted.versions:
        raise BadInputError(
            "A duel shows what each version writes, unchosen. Leave out candidates, or versions."
        )
    if wanted.doubt is not None:
        return Plan(wanted.candidates, Choice(wanted.choose, wanted.candidates))
    if wanted.candidates == wanted.replies:
        return Plan(wanted.replies, drawn)
    if reason := why_unscored(wanted, rewards, version):
        note = note or f"{reason} {AS_DRAWN}"
        return Plan(wanted.replies, Choice(wanted.choose, wanted.replies, note=note))
    return Plan(wanted.candidates, Choice(wanted.choose, wanted.candidates))
