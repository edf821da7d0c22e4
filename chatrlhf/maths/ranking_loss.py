"""Losses of rankings: Plackett-Luce with ties, over whole rankings.

Notation: K replies of one turn; ``scores`` (K,); ``ranks`` (K,) integers, 1 is best, equal ranks
are a tie.

Plackett-Luce (Plackett 1975; Luce 1959): the best is chosen among all with probability
``exp(s_best) / sum exp(s)``, the next among the rest, and so on. A tie says nothing about the
order inside its group, so each member of a tied group is compared with the worse replies only:

    loss = - sum_i log( exp(s_i) / (exp(s_i) + sum_{j: rank_j > rank_i} exp(s_j)) )

Without ties this is Plackett-Luce; with two replies it is Bradley-Terry; "best of K" is one term.
One ranking is one observation, whatever K is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def plackett_luce_loss(scores: Tensor, ranks: Tensor) -> Tensor:
    """Negative log-likelihood of one ranking; a scalar, zero when all are tied.

    Args:
        scores: (K,) float.
        ranks: (K,) integer, 1 is best.
    """
    loss = scores.new_zeros(())
    for rank in torch.unique(ranks)[:-1]:
        group = ranks == rank
        worse = scores[ranks > rank].logsumexp(0)
        loss = loss + (torch.logaddexp(scores[group], worse) - scores[group]).sum()
    return loss


def batch_plackett_luce_loss(scores: Tensor, ranks: Tensor, is_reply: Tensor) -> Tensor:
    """Mean of the losses of N rankings, each with up to K replies.

    Args:
        scores: (N, K).
        ranks: (N, K) integer.
        is_reply: (N, K) bool, False where a ranking has fewer replies.
    """
    losses = [
        plackett_luce_loss(s[present], r[present])
        for s, r, present in zip(scores, ranks, is_reply, strict=True)
    ]
    return torch.stack(losses).mean()


def comparisons(ranks: Tensor) -> Tensor:
    """Index pairs (better, worse) that a ranking implies, (P, 2); ties imply none."""
    better = ranks[:, None] < ranks[None, :]
    return better.nonzero()


def pair_accuracy(scores: Tensor, ranks: Tensor) -> tuple[int, int]:
    """How many of a ranking's comparisons the scores order right, and how many there are."""
    pairs = comparisons(ranks)
    right = scores[pairs[:, 0]] > scores[pairs[:, 1]]
    return int(right.sum()), len(pairs)
