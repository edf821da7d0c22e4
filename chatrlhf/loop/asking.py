"""Is a turn to be ranked, or does it get one reply and is plain chat?

"When unsure" writes all candidates, scores them, and asks where the reward model cannot tell which
is best. How sure it is, is the chance that the best score is above the next one when both err
independently by the spread of the ensemble: Phi((r1 - r2) / sqrt(s1^2 + s2^2)). Heads that err
together make this too small, so that it rather asks. Without a spread (one head) the deviation of
the candidates' scores takes its place. A share of the sure turns is asked by chance, so that what
the reward model is wrongly sure of comes up too.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatrlhf.engine.requests import ReplyScore
from chatrlhf.loop.rewards import Rewards
from chatrlhf.loop.turn_events import Doubt, NewTurn
from storage import asked
from storage.database import Database


def ask_or_not(
    db: Database, conversation_id: int, wanted: NewTurn, rewards: Rewards | None, version: str
) -> tuple[NewTurn, str]:
    """The turn as it is to be answered, and a note on what did not go as asked.

    One reply where the turn is not to be ranked; a ``doubt`` where the scores decide.
    """
    ask = wanted.ask
    if ask is None or ask.policy == "every" or wanted.replies == 1 or wanted.versions:
        return wanted, ""
    note = ""
    if ask.policy == "unsure":
        reason = why_unscored(wanted, rewards, version)
        if not reason:
            candidates = max(wanted.candidates, wanted.replies)
            doubt = Doubt(ask.below, ask.anyway)
            return replace(wanted, candidates=candidates, doubt=doubt), ""
        note = f"{reason} One turn in {ask.one_in} is to be ranked instead."
    if asked.is_due(db, conversation_id, ask.one_in):
        return wanted, note
    return replace(wanted, replies=1), note


def why_unscored(wanted: NewTurn, rewards: Rewards | None, version: str) -> str:
    """Why candidates of a turn cannot be told apart by their scores; empty if they can."""
    if wanted.sampling.temperature == 0.0:
        return "At temperature 0 all candidates are the same."
    if rewards is None:
        return "This server scores no replies."
    return rewards.why_none(version)


@dataclass(frozen=True)
class Verdict:
    """Whether to ask, and why, in words."""

    asks: bool
    note: str


def judge(doubt: Doubt, scores: Sequence[ReplyScore], seed: int) -> Verdict:
    """Whether a turn with candidates of these scores, two at least, is to be ranked."""
    sure = sureness(scores)
    percent = f"The reward model is {sure:.0%} sure which reply is best"
    if sure < doubt.below:
        return Verdict(asks=True, note=f"{percent}, so you decide.")
    if random.Random(f"ask {seed}").random() < doubt.anyway:
        return Verdict(asks=True, note=f"{percent}; you are asked by chance.")
    return Verdict(asks=False, note=f"{percent}, so it is shown alone.")


def sureness(scores: Sequence[ReplyScore]) -> float:
    """The chance that the best-scored reply is better than the next, 0.5 to 1."""
    best, second = sorted(scores, key=lambda one: one.total, reverse=True)[:2]
    spread = math.hypot(best.spread, second.spread)
    if spread == 0.0:
        spread = statistics.pstdev(one.total for one in scores)
    if spread == 0.0:
        return 0.5
    return statistics.NormalDist().cdf((best.total - second.total) / spread)
