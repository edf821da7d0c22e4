"""What several people say of the same replies: labels, and how far their rankings agree.

A ranking says something about the label ``bad`` too. Who calls all replies of a turn bad says so
of each; who orders them instead, although all could have been called bad, holds the best-ranked
ones for acceptable, but not in imported data sets, where nobody was asked. What the same person
says of a reply by the label itself goes before both.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

from chatrlhf.loop.sentences import Sentence, say
from storage.records import LabelledReply, RankedTurn

BAD = "bad"


def orders(turn: RankedTurn) -> bool:
    """Whether a ranking says which of two replies is better."""
    return not turn.all_bad and len(set(turn.ranks)) > 1


def label_shares(
    turns: Sequence[RankedTurn], labelled: Sequence[LabelledReply]
) -> dict[str, dict[int, float]]:
    """By label and reply id, the share of people who say that the label is true of the reply.

    Only people who say anything about that label and reply count.
    """
    said: dict[str, dict[int, dict[int, bool]]] = defaultdict(lambda: defaultdict(dict))
    for turn in turns:
        for reply_id, rank in zip(turn.reply_ids, turn.ranks, strict=True):
            accepted = orders(turn) and rank == 1 and not turn.imported
            if turn.all_bad or accepted:
                said[BAD][reply_id][turn.person_id] = turn.all_bad
    for label in itertools.chain.from_iterable(reply.labels for reply in labelled):
        said[label.label][label.reply_id][label.person_id] = label.value
    return {
        label: {reply_id: sum(votes.values()) / len(votes) for reply_id, votes in replies.items()}
        for label, replies in sorted(said.items())
    }


def agreement(turns: Sequence[RankedTurn]) -> tuple[int, int]:
    """Of the pairs of replies that two people both ordered: how many alike, and how many."""
    by_turn: dict[int, list[RankedTurn]] = defaultdict(list)
    for turn in turns:
        if orders(turn):
            by_turn[turn.turn_id].append(turn)
    alike, both = 0, 0
    for rankings in by_turn.values():
        for one, other in itertools.combinations(rankings, 2):
            theirs = dict(zip(other.reply_ids, other.ranks, strict=True))
            mine = dict(zip(one.reply_ids, one.ranks, strict=True))
            for first, second in itertools.combinations(sorted(mine.keys() & theirs.keys()), 2):
                product = (mine[first] - mine[second]) * (theirs[first] - theirs[second])
                alike += product > 0
                both += product != 0
    return alike, both


def agreement_sentence(alike: int, both: int) -> Sentence:
    """What ``agreement`` found, in words; ``both`` is at least 1."""
    return say(
        "Where several people ranked the same replies, they agree on {alike} of {pairs} pairs "
        "({share}); no reward model can agree with all of them.",
        alike=alike,
        pairs=both,
        share=f"{alike / both:.0%}",
    )
