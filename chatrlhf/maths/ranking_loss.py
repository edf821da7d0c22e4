"""Losses of rankings: Plackett-Luce with ties and margins, over whole rankings.

Notation: K replies of one turn; ``scores`` (K,); ``ranks`` (K,) integers, 1 is best, equal ranks
are a tie; m a margin, at least 0.

Plackett-Luce (Plackett 1975; Luce 1959): the best is chosen among all with probability
``exp(s_best) / sum exp(s)``, the next among the rest, and so on. A tie says nothing about the
order inside its group, so each member of a tied group is compared with the worse replies only:

    loss = - sum_i log( exp(s_i) / (exp(s_i) + sum_{j: rank_j > rank_i} exp(s_j + m)) )

Without ties and margin this is Plackett-Luce; with two replies it is Bradley-Terry; "best of K" is
one term. With two replies and a margin it is ``-log sigmoid(s_better - s_worse - m)``, equation 2
of Touvron et al. 2023, "Llama 2": a surer person wants the scores further apart.
One ranking is one observation, whatever K is.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRONGEST = 5


def strength_margin(strength: int | None, strongest: float) -> float:
    """The margin of a ranking whose person was ``strength`` sure, from 1 (barely) to 5 (very).

    It grows evenly from 0 at 1 to ``strongest`` at 5, as Llama 2's does over its four grades;
    without a strength there is none.
    """
    return 0.0 if strength is None else strongest * (strength - 1) / (STRONGEST - 1)


def plackett_luce_loss(scores: Tensor, ranks: Tensor, margin: float = 0.0) -> Tensor:
    """Negative log-likelihood of one ranking; a scalar, zero when all are tied.

    Args:
        scores: (K,) float.
        ranks: (K,) integer, 1 is best.
        margin: added to the scores of the worse replies.
    """
    is_reply = torch.ones_like(ranks, dtype=torch.bool)
    margins = torch.full((1,), margin, dtype=scores.dtype, device=scores.device)
    return plackett_luce_losses(scores[None], ranks[None], is_reply[None], margins)[0]


def plackett_luce_losses(
    scores: Tensor, ranks: Tensor, is_reply: Tensor, margins: Tensor
) -> Tensor:
    """The losses of N rankings, each with up to K replies, (N,).

    Args:
        scores: (N, K); where ``is_reply`` is False they may be anything.
        ranks: (N, K) integer.
        is_reply: (N, K) bool, False where a ranking has fewer replies.
        margins: (N,), one a ranking.
    """
    # is_worse[n, i, j]: reply j of ranking n is ranked below reply i
    is_worse = (ranks[:, :, None] < ranks[:, None, :]) & is_reply[:, :, None] & is_reply[:, None, :]
    beats_any = is_worse.any(-1)  # (N, K)
    lowest = torch.finfo(scores.dtype).min
    worse = scores[:, None, :].masked_fill(~is_worse, lowest).logsumexp(-1)  # (N, K)
    terms = torch.logaddexp(scores, worse + margins[:, None]) - scores
    return torch.where(beats_any, terms, torch.zeros_like(terms)).sum(-1)


def comparisons(ranks: Tensor) -> Tensor:
    """Index pairs (better, worse) that a ranking implies, (P, 2); ties imply none."""
    better = ranks[:, None] < ranks[None, :]
    return better.nonzero()


def pair_accuracy(scores: Tensor, ranks: Tensor) -> tuple[int, int]:
    """How many of a ranking's comparisons the scores order right, and how many there are."""
    pairs = comparisons(ranks)
    right = scores[pairs[:, 0]] > scores[pairs[:, 1]]
    return int(right.sum()), len(pairs)


def effective_comparisons(ranks: Tensor) -> float:
    """What a ranking's comparisons are worth as independent ones.

    They share replies. For K replies and no skill, the variance of the share ordered right is
    (2 K + 5) / 9 times that of independent pairs (Kendall 1938, "A New Measure of Rank
    Correlation").
    """
    return len(comparisons(ranks)) * 9.0 / (2 * len(ranks) + 5)
