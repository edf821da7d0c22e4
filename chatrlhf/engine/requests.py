"""What the engine is asked, and what it answers.

A request is one turn: the messages so far and K wanted replies. The answer is a stream of
events, one queue a request, in the order in which they happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled", "interrupted"]


@dataclass(frozen=True)
class ChatMessage:
    """One message: role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 are off.

    With ``top_logprobs`` the events hold the drawn tokens, each with so many alternatives.
    """

    temperature: float = 0.9
    top_p: float = 0.95
    top_k: int = 0
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class ReplyRequest:
    """K replies to one conversation.

    ``versions`` names one version per reply (a duel mixes them); empty means the live version
    for all, pinned when the request is admitted. Row ``i`` draws from a generator seeded by
    ``(seed, i)``, so the same request gives the same replies.
    """

    messages: tuple[ChatMessage, ...]
    replies: int
    seed: int
    sampling: Sampling
    versions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Started:
    """The request was admitted; ``versions`` are the pinned versions, one a reply."""

    versions: tuple[str, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class DrawnToken:
    """A token of a reply, the bytes it stands for, and its log-probability in nats.

    That is of the whole distribution at the request's temperature (1 when greedy), before top-k
    and top-p. ``alternatives`` are the most probable tokens at its place, best first.
    """

    token_id: int
    text: bytes
    logprob: float
    alternatives: tuple[DrawnToken, ...] = ()


@dataclass(frozen=True)
class Delta:
    """More text of reply ``row``, and the tokens drawn since its last event, if wanted."""

    row: int
    text: str
    tokens: tuple[DrawnToken, ...] = ()


@dataclass(frozen=True)
class Finished:
    """Reply ``row`` ended. ``token_ids`` exclude the end-of-turn token.

    ``tokens``, if wanted, are those drawn since its last event.
    """

    row: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    version: str
    seed: int
    tokens: tuple[DrawnToken, ...] = ()


@dataclass(frozen=True)
class Failed:
    """The request failed; ``code`` and ``message`` are for people. No event follows."""

    code: str
    message: str
    http_status: int = 500


@dataclass(frozen=True)
class Completed:
    """All replies ended. No event follows."""


EngineEvent = Started | Delta | Finished | Failed | Completed


@dataclass(frozen=True)
class ReplyScore:
    """The reward of one reply, what each term adds to it, and how far the ensemble is apart."""

    total: float
    terms: dict[str, float]
    spread: float


@dataclass(frozen=True)
class ScoredReplies:
    """Scores in the order of the replies, and the terms that were left out."""

    scores: tuple[ReplyScore, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class TokenValue:
    """A token of a reply, and what is expected of the reply once it stands."""

    text: str
    value: float


@dataclass(frozen=True)
class ReplyValues:
    """What is expected before the first token of a reply, and after each."""

    before: float
    tokens: tuple[TokenValue, ...]


@dataclass(frozen=True)
class TokenValues:
    """Values in the order of the replies; by the critic, or by the reward model in its stead."""

    source: Literal["critic", "reward"]
    replies: tuple[ReplyValues, ...]
