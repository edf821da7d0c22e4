"""What the rest of the program sees of the database: frozen records, no SQL.

Times are ISO 8601 in UTC. Ids grow with time; order by id, never by clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

ReplyState = Literal["streaming", "complete", "interrupted", "cancelled"]
FinishReason = Literal["stop", "length", "cancelled", "interrupted"]
VersionState = Literal["candidate", "ready", "rejected", "quarantined", "retired"]
RunState = Literal["queued", "running", "succeeded", "skipped", "failed", "cancelled"]
Stage = Literal["sft", "reward", "ppo"]
DUEL, REPLAY = "duel", "replay"
DUELS = (DUEL, REPLAY)  # slot types of turns that mix two versions


@dataclass(frozen=True)
class Conversation:
    """A chat of one person.

    ``origin`` names the format that an import read it from; it is empty for chats held here, or
    in another data folder.
    """

    id: int
    person_id: int
    title: str
    system_prompt: str
    created_at: str
    origin: str = ""
    origin_key: str | None = None


@dataclass(frozen=True)
class Reply:
    """One alternative reply of a turn, with all that is needed to make it again.

    ``candidate``, ``score`` and ``propensity`` are those of `Chosen`; a reply that was not chosen
    among several has no score and no propensity.
    """

    id: int
    turn_id: int
    position: int
    text: str
    token_ids: tuple[int, ...]
    version: str
    seed: int
    sampling: dict[str, Any]
    state: ReplyState
    finish_reason: FinishReason | None
    slot_type: str
    logprobs: tuple[float, ...] = ()
    candidate: int = 0
    score: float | None = None
    propensity: float | None = None


@dataclass(frozen=True)
class Chosen:
    """Why a reply was chosen to be shown.

    ``candidate`` is the row of the request that drew it, ``score`` what the reward model gave it
    (None: nothing), ``propensity`` how likely it was to be shown, given all candidates.
    """

    candidate: int
    slot_type: str
    propensity: float
    score: float | None = None


@dataclass(frozen=True)
class Choice:
    """What the replies of a turn are chosen from, and how.

    ``version`` is the one whose reward model scored the candidates, ``scores`` in their order;
    both are empty where they were not scored. ``note`` says what did not go as asked.
    """

    policy: str
    candidates: int
    version: str = ""
    scores: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class NewReply:
    """A reply row to be made with its turn. ``position`` counts from 0, in shown order.

    ``version`` may be empty until the engine has pinned one; ``slot_type`` says why the reply is
    shown: ``policy`` (all that were drawn are shown), ``best``, ``random``, ``duel`` (the live and
    an older version, blind), ``replay`` (the same, of a prompt that was answered badly before).
    """

    position: int
    version: str
    seed: int
    sampling: dict[str, Any]
    slot_type: str = "policy"


@dataclass(frozen=True)
class Turn:
    """A prompt of the person and the replies it got, in shown order.

    ``choice`` is None where no more candidates were asked for than are shown. Rankings with an id
    above ``revealed_after`` are not blind: somebody had looked up who wrote the replies.
    """

    id: int
    conversation_id: int
    parent_reply_id: int | None
    text: str
    replies: tuple[Reply, ...]
    created_at: str
    choice: Choice | None = None
    revealed_after: int | None = None

    @property
    def is_duel(self) -> bool:
        """Whether its replies are of two versions that the person is not to tell apart."""
        return any(reply.slot_type in DUELS for reply in self.replies)


@dataclass(frozen=True)
class Ranking:
    """An order of all replies of one turn; equal ranks are ties, rank 1 is best.

    ``state`` is ``active``, ``superseded`` (a revision replaces it) or ``withdrawn`` (undone).
    """

    id: int
    turn_id: int
    person_id: int
    ranks: dict[int, int]
    strength: int | None
    comment: str
    all_bad: bool
    state: Literal["active", "superseded", "withdrawn"]
    revision_of: int | None
    created_at: str
    order: str = ""
    comparisons: int = 0


@dataclass(frozen=True)
class BlindReply:
    """A ranked reply of a blind turn: who wrote it, and its place (1 is best)."""

    version: str
    rank: int
    text: str


@dataclass(frozen=True)
class BlindRanking:
    """A person's first ranking of a turn that mixed two versions, given without knowing them."""

    ranking_id: int
    turn_id: int
    person_id: int
    slot_type: str
    prompt: str
    replies: tuple[BlindReply, ...]


@dataclass(frozen=True)
class Prediction:
    """How many ordered pairs of a ranking a reward model had right before it learned from it."""

    ranking_id: int
    version: str
    right_pairs: int
    pairs: int


@dataclass(frozen=True)
class Label:
    """What one person says of one reply: ``label`` is or is not true of it."""

    reply_id: int
    person_id: int
    label: str
    value: bool


@dataclass(frozen=True)
class Message:
    """One message of a conversation: role is system, user or assistant."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Demonstration:
    """A reply that a person wrote, with the conversation before it."""

    id: int
    turn_id: int | None
    person_id: int
    messages: tuple[Message, ...]
    text: str
    created_at: str


@dataclass(frozen=True)
class RankedTurn:
    """One training example of the reward model: a context, its replies and their ranks.

    ``imported``: from a data set, whose raters could not call all replies bad.
    """

    ranking_id: int
    turn_id: int
    person_id: int
    messages: tuple[Message, ...]
    reply_ids: tuple[int, ...]
    replies: tuple[str, ...]
    finished: tuple[bool, ...]
    ranks: tuple[int, ...]
    strength: int | None
    all_bad: bool
    imported: bool = False


@dataclass(frozen=True)
class LabelledReply:
    """A reply with its context, and what people say of it; ``finished``: it ended by itself."""

    reply_id: int
    messages: tuple[Message, ...]
    text: str
    finished: bool
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Prompt:
    """A prompt of the pool. ``split`` is train or held_out."""

    id: int
    text: str
    system_prompt: str
    tags: tuple[str, ...]
    split: Literal["train", "held_out"]


@dataclass(frozen=True)
class Assigned:
    """What the rating queue gives a person: a turn, and the prompt of the pool that it answers."""

    turn_id: int
    prompt: Prompt


@dataclass(frozen=True)
class RepeatedRanking:
    """Ranks that one person gave the same replies twice; both in the same order of replies."""

    person_id: int
    first: tuple[int, ...]
    again: tuple[int, ...]


@dataclass(frozen=True)
class Version:
    """One adapter version; its weights lie in ``versions/<name>``.

    ``erased_rankings`` counts rankings it was trained on that have been erased since.
    """

    id: int
    name: str
    parent: str | None
    state: VersionState
    run_id: int | None
    manifest_sha256: str
    metrics: dict[str, Any]
    note: str
    created_at: str
    erased_rankings: int = 0


@dataclass(frozen=True)
class Run:
    """One round of the trainer, as far as it has come."""

    id: int
    state: RunState
    stages: tuple[Stage, ...]
    requested_by: str
    owner: str | None
    fence: int
    attempts: int
    heartbeat: int
    stage: str | None
    step: int
    steps: int
    eta_seconds: float | None
    message: str
    last_ranking_id: int
    settings: dict[str, Any]
    dataset_hash: str | None
    result_version: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    pid: int | None = None
    boot_id: str | None = None


@dataclass(frozen=True)
class Metric:
    """One number of a run: the value of ``name`` at ``step`` of ``stage``; ``id`` once stored."""

    stage: str
    step: int
    name: str
    value: float
    id: int = 0


@dataclass(frozen=True)
class Sample:
    """A reply that the policy in training gave, with its score; ``id`` once stored.

    ``terms`` says what each term of the reward adds to the score.
    """

    stage: str
    step: int
    prompt: str
    reply: str
    score: float | None
    id: int = 0
    terms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One sentence of a run's timeline. ``kind``: info, gate_passed, gate_failed, error."""

    id: int
    run_id: int
    kind: str
    text: str
    created_at: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Person:
    """Somebody who chats and rates. Local single use has one person, ``local``."""

    id: int
    name: str
    role: Literal["reader", "rater", "trainer", "admin"]
    created_at: str


@dataclass(frozen=True)
class AuditEntry:
    """One row of the audit log; ``sha256`` covers the row and the hash of the row before it."""

    id: int
    person_id: int | None
    action: str
    detail: dict[str, Any]
    created_at: str
    previous_sha256: str
    sha256: str
