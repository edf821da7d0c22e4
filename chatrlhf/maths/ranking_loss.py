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
    is_reply = torch.ones_like(ranks, dtype=torch.bool)
    return batch_plackett_luce_loss(scores[None], ranks[None], is_reply[None])


def batch_plackett_luce_loss(scores: Tensor, ranks: Tensor, is_reply: Tensor) -> Tensor:
    """Mean of the losses of N rankings, each with up to K replies; a scalar.

    Args:
        scores: (N, K); where ``is_reply`` is False they may be anything finite.
        ranks: (N, K) integer.
        is_reply: (N, K) bool, False where a ranking has fewer replies.
    """
    # is_worse[n, i, j]: reply j of ranking n is ranked below reply i
    is_worse = (ranks[:, :, None] < ranks[:, None, :]) & is_reply[:, :, None] & is_reply[:, None, :]
    beats_any = is_worse.any(-1)  # (N, K)
    lowest = torch.finfo(scores.dtype).min
    worse = scores[:, None, :].masked_fill(~is_worse, lowest).logsumexp(-1)  # (N, K)
    terms = torch.logaddexp(scores, worse) - scores
    return torch.where(beats_any, terms, torch.zeros_like(terms)).sum(-1).mean()


def comparisons(ranks: Tensor) -> Tensor:
    """Index pairs (better, worse) that a ranking implies, (P, 2); ties imply none."""
    better = ranks[:, None] < ranks[None, :]
    return better.nonzero()


def pair_accuracy(scores: Tensor, ranks: Tensor) -> tuple[int, int]:
    """How many of a ranking's comparisons the scores order right, and how many there are."""
    pairs = comparisons(ranks)
    right = scores[pairs[:, 0]] > scores[pairs[:, 1]]
    return int(right.sum()), len(pairs)
