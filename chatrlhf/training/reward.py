"""The reward of a reply: features under the reward adapter, and all terms on them.

How it is fitted: ``reward_head.py`` (rankings), ``label_head.py`` (labels),
``reward_adapter.py`` (the adapter). Run by ``chatrlhf train --stage reward``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import CLASSIFIER, RewardTerms, TermScores
from chatrlhf.models.sequence_classifier import SequenceClassifier
from chatrlhf.training.batches import TokenSequence, make_batch
from chatrlhf.training.parallel import cores, in_parallel
from chatrlhf.training.reward_data import RankingExample
from chatrlhf.training.row_limit import UNLIMITED, parts_of

PromptAndReply = tuple[str, str]


@dataclass(frozen=True)
class Replies:
    """Replies to be scored: with their context as tokens, and as (prompt, reply) texts.

    ``texts`` are read by the external classifier only; the prompt is the last message before the
    reply.
    """

    sequences: Sequence[TokenSequence]
    texts: Sequence[PromptAndReply]


class Reward:
    """A reward model, its terms, and the external classifier if the terms have one."""

    def __init__(
        self, model: RewardModel, terms: RewardTerms, classifier: SequenceClassifier | None = None
    ) -> None:
        if (CLASSIFIER in terms.terms) != (classifier is not None):
            raise ValueError("the classifier and its term go together")
        self.model = model
        self.terms = terms
        self.classifier = classifier

    @property
    def head(self) -> ScalarHead:
        """All linear terms as one head: what PPO's critic starts from."""
        return self.terms.linear_total()

    def score(self, replies: Replies, micro_batch: int) -> TermScores:
        """Score replies by every term; tensors are float32 on the CPU."""
        return self.terms.scores(*self._read(replies, micro_batch))

    def normalise(self, replies: Replies, micro_batch: int) -> None:
        """Give each term mean 0 and standard deviation 1 over these replies.

        Redone after every fit, or weights and KL coefficient would change their meaning. Fewer
        than two replies change nothing.
        """
        if len(replies.sequences) > 1:
            self.terms = self.terms.normalised(*self._read(replies, micro_batch))

    def _read(self, replies: Replies, micro_batch: int) -> tuple[Tensor, Tensor | None]:
        features = read_features(self.model, replies.sequences, micro_batch)
        if self.classifier is None:
            return features, None
        return features, self.classifier.logits(replies.texts, micro_batch)


@torch.no_grad()
def read_features(
    model: RewardModel, sequences: Sequence[TokenSequence], micro_batch: int
) -> Tensor:
    """Pooled features of replies with their context, (B, D) float32 on the CPU."""
    if not sequences:
        return torch.zeros(0, model.head.weight.numel())
    known = model.known_features([(one.token_ids, one.is_response) for one in sequences])
    if known is not None:
        return known.cpu()
    at_once = cores(model.base.device)
    size = min(micro_batch, math.ceil(len(sequences) / at_once))
    parts = parts_of(sequences, size)
    return torch.cat(in_parallel(lambda part: _features(model, part), parts, at_once))


def ranking_features(
    model: RewardModel,
    examples: Sequence[RankingExample],
    on_step: Callable[[int, int], None] | None = None,
    micro_batch: int = UNLIMITED,
) -> list[Tensor]:
    """Pooled features of every ranking's replies, one ranking at a time: a list of (K, D)."""
    found: list[Tensor] = []
    for example in examples:
        found.append(read_features(model, example.sequences, micro_batch))
        if on_step:
            on_step(len(found), len(examples))
    return found


@torch.no_grad()
def score_sequences(
    model: RewardModel, sequences: Sequence[TokenSequence], micro_batch: int
) -> Tensor:
    """Scores of replies by the model's own head, (B,) float32 on the CPU."""
    scores: Tensor = model.head(read_features(model, sequences, micro_batch).to(model.base.device))
    return scores.cpu()


def _features(model: RewardModel, sequences: Sequence[TokenSequence]) -> Tensor:
    batch = make_batch(sequences, model.base.chat_format.pad_token_id, model.base.device)
    return model.features(batch.token_ids, batch.is_response_token, batch.last_token).cpu()
