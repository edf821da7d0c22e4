"""What the numbers of a round mean, in words: is the reward being gamed, do rounds still help?

None of these decides anything: gates do. The thresholds are rules of thumb.
"""

from __future__ import annotations

from collections.abc import Sequence

from chatrlhf.loop.gates import Canary
from chatrlhf.loop.sentences import Sentence, say

# Rounds in a row, and the gain (in deviations of the reward) below which one did not help.
CONVERGED_ROUNDS = 3
LEAST_GAIN = 0.1
_LENGTH_FACTOR = 2.0
_SPREAD_FACTOR = 1.5
_MORE_REPETITION = 0.05
_FEWER_ENDINGS = 0.05


def gaming(parent: Canary, candidate: Canary) -> tuple[Sentence, ...]:
    """What to say when the score rose and something else moved that a rater may not want.

    A reward model is gamed where the policy finds what it scores high and people do not (Gao et al.
    2022, "Scaling Laws for Reward Model Overoptimization"). From inside it shows as replies unlike
    those that were ranked.
    """
    signs = _signs(parent, candidate)
    if candidate.score <= parent.score or not signs:
        return ()
    return (
        say("The score rose, and something else with it."),
        *signs,
        say(
            "If that is not what you want, the reward is being gamed: read the samples, roll back, "
            "and rank such replies."
        ),
    )


def _signs(parent: Canary, candidate: Canary) -> list[Sentence]:
    signs = []
    before, after = max(parent.reply_tokens, 1.0), max(candidate.reply_tokens, 1.0)
    if max(before / after, after / before) >= _LENGTH_FACTOR:
        signs.append(
            say(
                "Replies went from {before} to {after} tokens.",
                before=f"{before:.0f}",
                after=f"{after:.0f}",
            )
        )
    if candidate.repetition > parent.repetition + _MORE_REPETITION:
        signs.append(
            say(
                "Repeated phrases went from {before} to {after}.",
                before=f"{parent.repetition:.0%}",
                after=f"{candidate.repetition:.0%}",
            )
        )
    if candidate.finished < parent.finished - _FEWER_ENDINGS:
        signs.append(
            say(
                "Replies that end by themselves went from {before} to {after}.",
                before=f"{parent.finished:.0%}",
                after=f"{candidate.finished:.0%}",
            )
        )
    if parent.spread > 0.0 and candidate.spread > _SPREAD_FACTOR * parent.spread:
        signs.append(
            say(
                "The reward model is less sure (spread {before} to {after}).",
                before=f"{parent.spread:.2f}",
                after=f"{candidate.spread:.2f}",
            )
        )
    return signs


def convergence(gains: Sequence[float]) -> Sentence | None:
    """A sentence when the newest rounds no longer improved the score.

    Args:
        gains: rise of the mean score on held-out prompts, by round, oldest first, in deviations of
            the reward.
    """
    newest = list(gains)[-CONVERGED_ROUNDS:]
    if len(newest) < CONVERGED_ROUNDS or max(newest) >= LEAST_GAIN:
        return None
    told = ", ".join(f"{gain:+.2f}" for gain in newest)
    return say(
        "The last {rounds} rounds changed the score by {gains}: they no longer improve. "
        "Rankings of other prompts, or demonstrations, take it further than more rounds.",
        rounds=CONVERGED_ROUNDS,
        gains=told,
    )
