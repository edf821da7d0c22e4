"""What requests of the API may contain. Everything else is refused before it reaches a row.

Types are strict (``"4"`` is no number) and unknown fields are refused, so that a misspelt option
is an answer and not a silent default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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
Stage = Literal["sft", "reward", "ppo"]


class Body(BaseModel):
    """Base of the request bodies of ``/api``."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class NewConversationBody(Body):
    """A new conversation."""

    system_prompt: Text = ""
    title: ShortText = ""


class RenameBody(Body):
    """The new title of a conversation."""

    title: Annotated[ShortText, AfterValidator(_filled)]


class TurnBody(Body):
    """A prompt. What is left out comes from the server's settings; the seed is then random."""

    text: FilledText
    replies: Annotated[int, Field(ge=1, le=8)] | None = None
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


class PromptBody(Body):
    """One prompt of the pool."""

    text: FilledText
    system_prompt: Text = ""
    tags: list[Annotated[str, Field(min_length=1, max_length=40)]] = Field(
        default_factory=list, max_length=16
    )


class PromptsBody(Body):
    """Prompts to add to the pool."""

    prompts: list[PromptBody] = Field(min_length=1, max_length=1000)


class RoundBody(Body):
    """A wish for a round; without stages, the trainer does those that have something to learn."""

    stages: list[Stage] | None = Field(default=None, min_length=1, max_length=3)


class MessageBody(Body):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: FilledText


class ScoreBody(Body):
    """A conversation that ends with the person's message, and replies to it."""

    messages: list[MessageBody] = Field(min_length=1, max_length=1000)
    replies: list[Text] = Field(min_length=1, max_length=64)


class TextPart(BaseModel):
    """A part of a message's content, as OpenAI's clients may send it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text"]
    text: Text


class CompletionMessage(BaseModel):
    """One message of an OpenAI-compatible request."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def plain_text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """Options of a streamed completion."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class CompletionBody(BaseModel):
    """An OpenAI-compatible request; fields this server has no use for are ignored, as is usual."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    model: Annotated[str, Field(max_length=100)] = "chatrlhf"
    messages: list[CompletionMessage] = Field(min_length=1, max_length=1000)
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=100)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=16)]
        | None
    ) = None

    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end a reply."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
