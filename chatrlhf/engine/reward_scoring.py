"""Scores of replies by a version's reward model, on the base that the engine has in memory.

An external classifier is loaded when it is first needed, if the version's manifest says which it
is, and runs on the thread that asks. Where it cannot be had, its term is left out, and named.

Notation: B replies, L positions, D pooled features.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from chatrlhf.engine.requests import ChatMessage, ReplyScore, ScoredReplies
from chatrlhf.errors import ConflictError, ModelError
from chatrlhf.models.adapter_files import REWARD, AdapterFiles
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import CLASSIFIER, RewardTerms
from chatrlhf.models.scored_reply import context_and_reply
from chatrlhf.models.sequence_classifier import SequenceClassifier, load_classifier

logger = logging.getLogger(__name__)

ADAPTER = "scoring"
CLASSIFIED_AT_ONCE = 8
TOKENS_AT_ONCE = 256  # padding included; one reply, where it alone has more

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
        named = files.manifest.get("classifier") if CLASSIFIER in self._terms.terms else None
        self._classifier = _LazyClassifier(named, base.device) if named else None
        if set(self._terms.terms) == {CLASSIFIER} and self._classifier is None:
            raise ConflictError(
                f"The reward of {name} is a classifier alone, and the version does not say which. "
                "Ask the classifier itself."
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
        finished: Sequence[bool] | None = None,
    ) -> ScoredReplies:
        """Score replies to a conversation, cut to the last ``longest`` tokens each.

        ``run`` has the thread that owns the model do something, and waits for it. ``finished``
        says which replies ended by themselves, all by default.
        """
        ends = [True] * len(replies) if finished is None else finished
        tokens = [
            context_and_reply(self._base.chat_format, messages, text, finished=end, longest=longest)
            for text, end in zip(replies, ends, strict=True)
        ]
        found: list[Tensor] = []
        for few in _cut(tokens):
            run(partial(self._read, few, found))
        logits = None
        if self._classifier is not None:
            logits = self._classifier.logits([(messages[-1].content, text) for text in replies])
        return self._scored(torch.cat(found), logits)

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
        with scoring_adapter(self._bank, self._lora, self._dtype) as adapter:
            model = RewardModel(self._base, self._bank, adapter, ScalarHead(self._base.hidden_size))
            features = model.features(token_ids.to(device), is_reply.to(device), last.to(device))
            found.append(features.cpu())

    def _scored(self, features: Tensor, classifier_logits: Tensor | None) -> ScoredReplies:
        judged = self._terms.scores(features, classifier_logits)
        if not judged.values:
            raise ConflictError("The reward is a classifier alone, and it cannot be loaded here.")
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
def scoring_adapter(
    bank: LoraBank, lora: Mapping[str, Tensor], dtype: torch.dtype
) -> Iterator[str]:
    """An adapter with these weights, for as long as something is scored."""
    bank.add(ADAPTER, dtype=dtype)
    try:
        bank.load_state(ADAPTER, lora)
        yield ADAPTER
    finally:
        bank.remove(ADAPTER)


class _LazyClassifier:
    """The classifier that a manifest names, loaded once; thread safe."""

    def __init__(self, named: Mapping[str, str], device: torch.device) -> None:
        self._named = named
        self._device = device
        self._lock = threading.Lock()
        self._loaded: SequenceClassifier | None = None
        self._failed = False

    def logits(self, texts: Sequence[tuple[str, str]]) -> Tensor | None:
        """The label's logit for (prompt, reply) texts, (B,); None where it cannot be loaded."""
        with self._lock:
            if self._loaded is None and not self._failed:
                self._load()
        return None if self._loaded is None else self._loaded.logits(texts, CLASSIFIED_AT_ONCE)

    def _load(self) -> None:
        name, label, reads = (self._named[key] for key in ("name", "label", "reads"))
        try:
            self._loaded = load_classifier(
                name, label, reads="reply" if reads == "reply" else "pair", device=self._device
            )
        except ModelError as error:
            self._failed = True
            logger.warning("scores lack the classifier: %s", error)


def _cut(tokens: Sequence[ContextAndReply]) -> Iterator[Sequence[ContextAndReply]]:
    """Replies in runs of at most ``TOKENS_AT_ONCE`` tokens, one reply at least."""
    start, longest = 0, 0
    for place, (context, reply) in enumerate(tokens):
        wider = max(longest, len(context) + len(reply))
        if place > start and wider * (place + 1 - start) > TOKENS_AT_ONCE:
            yield tokens[start:place]
            start, wider = place, len(context) + len(reply)
        longest = wider
    yield tokens[start:]
