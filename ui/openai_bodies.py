"""What a request to ``/v1/chat/completions`` may contain.

Three kinds of parameters beside those that work. Hints that change no text are ignored. What this
server cannot do may have the value that switches it off, and is refused otherwise. All others are
refused as unknown, as OpenAI's API does: a misspelt option is an answer and no silent default.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chatrlhf.engine.admission import MOST_ALTERNATIVES
from ui.bodies import Text
from ui.openai_errors import ParameterError

LIVE_MODEL = "chatrlhf"
LARGEST_COUNT = 2**31 - 1

HINTS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
# The values that change nothing; None never does.
OFF: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "min_p": (0,),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "web_search_options": (),
}


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text"]
    text: Text


class CompletionMessage(BaseModel):
    """One message; what a client adds to it, such as a name, is ignored, but for calls of tools."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None

    def plain_text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """Options of a streamed completion."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = None


StopString = Annotated[str, Field(min_length=1, max_length=100)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]


class CompletionBody(BaseModel):
    """A request for completions. What is left out comes from the server's settings.

    ``top_k`` is no parameter of OpenAI's, but of most servers that speak its protocol.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    model: Annotated[str, Field(max_length=100)] = LIVE_MODEL
    messages: list[CompletionMessage] = Field(min_length=1, max_length=1000)
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=0, le=LARGEST_COUNT)] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None

    def check(self) -> None:
        """Refuse what pydantic's types do not.

        Raises:
            ParameterError: a parameter is unknown, or asks for what this server cannot do.
        """
        for name, value in (self.model_extra or {}).items():
            if name in HINTS or value is None:
                continue
            if name not in OFF:
                message = f"Unrecognized request argument: {name}. Leave it out."
                raise ParameterError(name, message, "unknown_parameter")
            if isinstance(value, bool) or value not in OFF[name]:
                message = f"{name} is not supported by this server. Leave it out."
                raise ParameterError(name, message, "unsupported_parameter")
        if self.top_logprobs is not None and not self.logprobs:
            raise ParameterError("top_logprobs", "top_logprobs needs logprobs to be true.")
        last = self.messages[-1]
        if last.role != "user" or not last.plain_text().strip():
            message = "The last message must be the user's, and not blank."
            raise ParameterError("messages", message)

    def wants_usage(self) -> bool:
        """Whether a stream is to end with the number of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def alternatives(self) -> int | None:
        """How many other tokens to name beside each token; None when none are to be named."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end a reply."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
