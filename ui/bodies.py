"""What requests of the API may contain. Everything else is refused before it reaches a row.

Types are strict (``"4"`` is no number) and unknown fields are refused, so that a misspelt option
is an answer and not a silent default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from chatrlhf.settings import AskPolicy, ChoicePolicy
from storage.values import TEXT_LIMIT_BYTES

LARGEST_ID = 2**63 - 1


def _plain(text: str) -> str:
    if "\x00" in text:
        raise ValueError("it contains a NUL character; remove it")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("it is blank; write something")
    return text


def _bounded(text: str) -> str:
    size = len(text.encode("utf-8"))
    if size > TEXT_LIMIT_BYTES:
        raise ValueError(f"it has {size:,} bytes; at most {TEXT_LIMIT_BYTES:,} are taken")
    return text


Text = Annotated[str, AfterValidator(_plain), AfterValidator(_bounded)]
FilledText = Annotated[Text, AfterValidator(_filled)]
ShortText = Annotated[str, Field(max_length=200), AfterValidator(_plain)]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_ID)]
VersionName = Annotated[str, Field(pattern=r"^v[0-9]{1,9}$")]
Stage = Literal["sft", "reward", "ppo"]


class Body(BaseModel):
    """Base of the request bodies of ``/api``."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class NewConversationBody(Body):
    """A new conversation."""

    system_prompt: Text = ""
    title: ShortText = ""


class ChangeConversationBody(Body):
    """What a conversation gets anew; the system prompt only before its first turn."""

    title: Annotated[ShortText, AfterValidator(_filled)] | None = None
    system_prompt: Text | None = None


class TurnBody(Body):
    """A prompt. What is left out comes from the server's settings; the seed is then random.

    With more ``candidates`` than ``replies``, those shown are chosen by the policy ``choose``, with
    the live version's reward model; 0 writes no more than are shown. ``duel`` asks for replies of
    the live and an older version mixed, unseen (true), or for none (false); else chance decides.

    ``ask`` says when the turn is to be ranked: ``every`` time; ``sometimes``, one turn in
    ``ask_one_in``; or when the reward model is ``unsure``. Any other turn gets one reply.
    """

    text: FilledText
    replies: Annotated[int, Field(ge=1, le=8)] | None = None
    candidates: Annotated[int, Field(ge=0, le=8)] | None = None
    choose: ChoicePolicy | None = None
    duel: bool | None = None
    ask: AskPolicy | None = None
    ask_one_in: Annotated[int, Field(ge=2, le=100)] | None = None
    seed: Seed | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    parent_reply_id: Id | None = None


class RankingBody(Body):
    """Ranks by reply id; rank 1 is best, equal ranks are ties. With ``all_bad``, may be empty."""

    ranks: dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")], int] = Field(
        default_factory=dict, max_length=64
    )
    strength: int | None = None
    comment: Text = ""
    all_bad: bool = False
    idempotency_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    def ranks_by_id(self) -> dict[int, int]:
        """The ranks with the reply ids as numbers."""
        return {int(reply_id): rank for reply_id, rank in self.ranks.items()}


class DemonstrationBody(Body):
    """The reply that a person would have wanted."""

    text: FilledText


class LabelBody(Body):
    """Whether a word applies to a reply."""

    label: str
    value: bool


Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=40)]], Field(max_length=16)]


class PromptBody(Body):
    """One prompt of the pool; with a ``template``, the texts that it is made of."""

    text: FilledText
    system_prompt: Text = ""
    tags: Tags = Field(default_factory=list)
    template: ShortText | None = None
    fields: dict[ShortText, Text] = Field(default_factory=dict, max_length=16)


class PromptsBody(Body):
    """Prompts to add to the pool."""

    prompts: list[PromptBody] = Field(min_length=1, max_length=1000)


class PromptChangeBody(Body):
    """What changes of a prompt; what is left out stays."""

    text: FilledText | None = None
    system_prompt: Text | None = None
    tags: Tags | None = None


class SkipBody(Body):
    """A turn of the queue that the person does not rate."""

    turn_id: Id
    reason: Annotated[str, Field(max_length=1000), AfterValidator(_plain)] = ""


class GoalBody(Body):
    """Rankings that a person wants to give each day; null is no goal."""

    goal: Annotated[int, Field(ge=1, le=10_000)] | None


class QueueSettingsBody(Body):
    """What changes of the queue for everybody; what is left out stays."""

    ahead: Annotated[int, Field(ge=0, le=64)] | None = None
    overlap: Annotated[int, Field(ge=1, le=20)] | None = None


class RoundBody(Body):
    """A wish for a round; without stages, the trainer does those that have something to learn."""

    stages: list[Stage] | None = Field(default=None, min_length=1, max_length=3)


Password = Annotated[str, Field(min_length=1, max_length=1000)]
Role = Literal["reader", "rater", "trainer", "admin"]
Secret = Annotated[str, Field(min_length=1, max_length=200)]


class SignInBody(Body):
    """Who signs in."""

    name: ShortText
    password: Password


class NewPasswordBody(Body):
    """A change of the own password."""

    old: Password
    new: Password


class KeyBody(Body):
    """What an API key is for."""

    name: Annotated[ShortText, AfterValidator(_filled)]


class NewPersonBody(Body):
    """Somebody who can sign in from now on."""

    name: ShortText
    password: Password
    role: Role = "rater"


class RoleBody(Body):
    """What a person may do from now on."""

    role: Role


class InvitationBody(Body):
    """An invitation by a link."""

    role: Role = "rater"
    note: ShortText = ""
    days: Annotated[int, Field(ge=1, le=90)] = 7


class InvitationSecretBody(Body):
    """What follows ``#invitation=`` in a link."""

    secret: Secret


class AcceptBody(InvitationSecretBody):
    """The account of the one who was invited."""

    name: ShortText
    password: Password


class MessageBody(Body):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: FilledText


class ScoreBody(Body):
    """A conversation that ends with the person's message, and replies to it."""

    messages: list[MessageBody] = Field(min_length=1, max_length=1000)
    replies: list[Text] = Field(min_length=1, max_length=64)


class ReplayBody(Body):
    """A turn whose prompt is put again."""

    turn_id: Id


class CompareBody(Body):
    """A prompt, or a turn whose prompt and context are taken, for versions to answer."""

    versions: list[VersionName] = Field(min_length=1, max_length=4)
    text: FilledText | None = None
    turn_id: Id | None = None
    seed: Seed | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    stream: bool = False


class ExplainBody(Body):
    """A stored reply, or a conversation that ends with the person's message and replies to it."""

    reply_id: Id | None = None
    messages: list[MessageBody] | None = Field(default=None, min_length=1, max_length=1000)
    replies: list[Text] | None = Field(default=None, min_length=1, max_length=8)
    version: VersionName | None = None


class OldVersionsBody(Body):
    """Which old versions' files go: those beyond the newest ``keep``; listed only, by default."""

    keep: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    dry_run: bool = True
