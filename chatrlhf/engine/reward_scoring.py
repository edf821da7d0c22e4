"""Scores of replies by a version's reward model, on the base that the engine has in memory.

The external classifier of a reward is not loaded here: its term is left out, and named.

Notation: B replies, L positions, D pooled features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from chatrlhf.engine.requests import ChatMessage, ReplyScore, ScoredReplies
from chatrlhf.errors import ConflictError
from chatrlhf.models.adapter_files import REWARD, AdapterFiles
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import CLASSIFIER, RewardTerms
from chatrlhf.models.scored_reply import context_and_reply

ADAPTER = "scoring"
REPLIES_AT_ONCE = 4

Action = Callable[[], None]
ContextAndReply = tuple[list[int], list[int]]


class ReplyScorer:
    """The reward model of the version ``name``, whose files were read.

    ``dtype`` is what its adapter is kept in while it is used.

    Raises:
        ConflictError: the version has no reward model, or only a classifier as its reward.
        VersionError: its tensors do not fit the base.
    """

    def __init__(
        self, base: BaseModel, bank: LoraBank, dtype: torch.dtype, files: AdapterFiles, name: str
    ) -> None:
        component = files.components.get(REWARD)
        if component is None:
            raise ConflictError(
                f"{name} has no reward model. Rank replies until a round makes a version with one."
            )
        self._terms = RewardTerms.from_state(component.head, base.hidden_size)
        if set(self._terms.terms) == {CLASSIFIER}:
            raise ConflictError(
                f"The reward of {name} is a classifier alone, which the server does not load. Ask "
                "the classifier itself."
            )
        self._base = base
        self._bank = bank
        self._dtype = dtype
        self._lora = component.lora

    def score(
        self,
        messages: Sequence[ChatMessage],
        replies: Sequence[str],
        longest: int,
        run: Callable[[Action], None],
    ) -> ScoredReplies:
        """Score finished replies to a conversation, cut to the last ``longest`` tokens each.

        ``run`` has the thread that owns the model do something, and waits for it.
        """
        tokens = [
            context_and_reply(
                self._base.chat_format, messages, text, finished=True, longest=longest
            )
            for text in replies
        ]
        found: list[Tensor] = []
        for at in range(0, len(tokens), REPLIES_AT_ONCE):
            run(partial(self._read, tokens[at : at + REPLIES_AT_ONCE], found))
        return self._scored(torch.cat(found))

    @torch.inference_mode()
    def _read(self, tokens: Sequence[ContextAndReply], found: list[Tensor]) -> None:
        """Append the pooled features of replies, (B, D) on the CPU."""
        longest = max(len(context) + len(reply) for context, reply in tokens)
        token_ids = torch.full((len(tokens), longest), self._base.chat_format.pad_token_id)
        is_reply = torch.zeros(len(tokens), longest, dtype=torch.bool)
        last = torch.zeros(len(tokens), dtype=torch.long)
        for row, (context, reply) in enumerate(tokens):
            end = len(context) + len(reply)
            token_ids[row, :end] = torch.tensor([*context, *reply])
            is_reply[row, len(context) : end] = True
            last[row] = end - 1
        device = self._base.device
        with self._adapter():
            model = RewardModel(self._base, self._bank, ADAPTER, ScalarHead(self._base.hidden_size))
            features = model.features(token_ids.to(device), is_reply.to(device), last.to(device))
            found.append(features.cpu())

    def _scored(self, features: Tensor) -> ScoredReplies:
        judged = self._terms.scores(features)
        parts = {name: values.tolist() for name, values in judged.contributions.items()}
        totals, spreads = judged.total.tolist(), judged.spread.tolist()
        scores = tuple(
            ReplyScore(
                totals[row], {name: values[row] for name, values in parts.items()}, spreads[row]
            )
            for row in range(len(features))
        )
        return ScoredReplies(scores, tuple(sorted(self._terms.terms.keys() - judged.values.keys())))

    @contextmanager
    def _adapter(self) -> Iterator[None]:
        self._bank.add(ADAPTER, dtype=self._dtype)
        try:
            self._bank.load_state(ADAPTER, self._lora)
            yield
        finally:
            self._bank.remove(ADAPTER)
