"""Rankings and labels of people who like one token: the more of it, the better."""

from __future__ import annotations

import torch

from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.reward_data import LabelExample, RankingExample

LIKED = 150


def planted(count, seed, replies=3):
    """Rankings by the number of ``LIKED`` tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tokens):
        return torch.randint(160, 310, (tokens,), generator=generator).tolist()

    found = []
    for _ in range(count):
        prompt = draw(4)
        ranks = (torch.randperm(replies, generator=generator) + 1).tolist()
        sequences = []
        for rank in ranks:
            reply = draw(6)
            for place in torch.randperm(6, generator=generator)[: 2 * (replies - rank)].tolist():
                reply[place] = LIKED
            sequences.append(TokenSequence.of_reply(prompt, reply))
        found.append(RankingExample(tuple(sequences), tuple(ranks), (6,) * replies))
    return found


def planted_labels(count, seed, positives=0.5):
    """Labels of replies: true of those with ``LIKED`` tokens, which are this share."""
    found = []
    for index, one in enumerate(planted(count, seed, replies=2)):
        wanted = 1 if (index + 0.5) / count < positives else 2
        place = one.ranks.index(wanted)
        found.append(LabelExample(one.sequences[place], float(wanted == 1), f"prompt {index}"))
    return found


def example(ranks, lengths=None, key="", **fields):
    """A ranking whose sequences do not matter."""
    sequences = tuple(TokenSequence.of_reply([9], [5]) for _ in ranks)
    lengths = tuple(lengths or [1] * len(ranks))
    return RankingExample(sequences, tuple(ranks), lengths, key, **fields)
