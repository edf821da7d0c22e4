"""What the live reward model says of rankings before it has learned from them.

Each new ranking is judged once, at the start of the round that first trains on it, by the reward
model that is live then: the accuracy of a forecast, never of a memory (Dawid 1984, "Statistical
theory: the prequential approach").
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from chatrlhf.loop.incumbent import Incumbent
from chatrlhf.loop.intervals import wilson_interval
from chatrlhf.loop.sentences import Sentence, say
from chatrlhf.maths.ranking_loss import comparisons
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.training.reward_data import RankingExample
from storage.records import Prediction


def foretell(
    incumbent: Incumbent,
    version: str,
    base: BaseModel,
    bank: LoraBank,
    examples: Sequence[RankingExample],
    known: Collection[int],
) -> list[Prediction]:
    """How many pairs of each new ranking the live reward model orders right.

    New are rankings of prompts that it has never seen, so that one that revises an old ranking,
    or is of the same replies, is none; ``known`` ones have been judged before.

    Raises:
        VersionError: its tensors do not fit the base.
    """
    seen = {one.prompt_key for one in examples if one.ranking_id <= incumbent.last_ranking_id}
    fresh = [one for one in examples if one.prompt_key not in seen and one.ranking_id not in known]
    scores = incumbent.scores(base, bank, fresh)
    if scores is None:
        return []
    found = []
    for example, own in zip(fresh, scores, strict=True):
        pairs = comparisons(torch.tensor(example.ranks))
        if len(pairs):
            right = int((own[pairs[:, 0]] > own[pairs[:, 1]]).sum())
            found.append(Prediction(example.ranking_id, version, right, len(pairs)))
    return found


def foretelling_sentence(found: Sequence[Prediction]) -> Sentence:
    """A sentence for the timeline."""
    pairs, right = sum(one.pairs for one in found), sum(one.right_pairs for one in found)
    rankings = len(found)
    # Pairs of one ranking share replies: as many trials as rankings, which errs to the wide side.
    share = right / pairs
    _, low, high = wilson_interval(share * rankings, rankings)
    return say(
        "Before training, the reward model of {version} ordered {right} of {pairs} pairs in "
        "{rankings} new rankings as you did ({share}, 95% interval {low}-{high}; 50% is chance).",
        version=found[0].version,
        right=right,
        pairs=pairs,
        rankings=rankings,
        share=f"{share:.0%}",
        low=f"{low:.0%}",
        high=f"{high:.0%}",
    )
