"""Settings of the model, the chat, the engine, the queue and the server."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from chatrlhf.errors import SettingsError
from chatrlhf.settings.kinds import (
    STRICT,
    AskPolicy,
    ChoicePolicy,
    Fraction,
    LabelNames,
    Names,
    Positive,
    Quantization,
    Rate,
)


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """Which base model, and how it is held in memory."""

    name: str = "embedded"
    quantization: Quantization = "auto"
    device: str = "auto"
    context_tokens: Annotated[int, Field(ge=64)] = 2048
    lora_rank: Positive = 16
    lora_alpha: Rate = 16.0


@dataclass(frozen=True, config=STRICT)
class ChatSettings:
    """How replies are sampled for a person.

    With more ``candidates`` than ``replies``, and a live version that has a reward model, that many
    are written unseen, scored, and ``replies`` of them shown by the policy ``choose``: ``random``,
    ``best`` (the highest scores), or ``best-and-random`` (the best one and others at random). 0
    writes no more than are shown, which then stream.

    ``ask`` says which turns get replies to rank, where a request leaves it open: ``every`` one;
    ``sometimes``, one in ``ask_one_in``; ``unsure``, those where the reward model is less sure than
    ``ask_below`` that the reply it scores best is better than the next, and by chance a share of
    ``ask_anyway`` of the others. The rest get one reply. ``labels`` are offered on each reply.

    ``duels`` is the share of turns in which the replies mix the live and an older version, unseen,
    once there is one; 0 is none.
    """

    replies: Annotated[int, Field(ge=1, le=8)] = 4
    candidates: Annotated[int, Field(ge=0, le=8)] = 0
    choose: ChoicePolicy = "best-and-random"
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.9
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    top_k: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    duels: Fraction = 0.2
    ask: AskPolicy = "every"
    ask_one_in: Annotated[int, Field(ge=2, le=100)] = 4
    ask_below: Annotated[float, Field(gt=0.5, le=1.0)] = 0.9
    ask_anyway: Fraction = 0.1
    labels: LabelNames = ("good", "toxic", "wrong", "off-topic", "too-long")

    def __post_init__(self) -> None:
        """Refuse values that cannot work together.

        Raises:
            SettingsError: naming them.
        """
        if 0 < self.candidates < self.replies:
            raise SettingsError(
                f"chat.candidates = {self.candidates} is fewer than chat.replies = {self.replies}: "
                "replies are chosen among the candidates. Raise chat.candidates, or set it to 0."
            )


@dataclass(frozen=True, config=STRICT)
class EngineSettings:
    """Limits of the engine: versions in memory, turns at once, turns waiting.

    ``cache_megabytes`` bounds the keys and values of running replies; 0 is half of the memory that
    is free when the model is loaded.

    ``native`` auto decodes in C++ with weights in int8 where the model, the processor and a C++
    compiler allow it; off leaves it to torch. ``threads`` is how many threads do so; 0 is as many
    as torch uses.
    """

    resident_versions: Annotated[int, Field(ge=2, le=16)] = 4
    active_turns: Positive = 16
    queued_turns: Positive = 64
    prefix_cache_tokens: Annotated[int, Field(ge=0)] = 16384
    cache_megabytes: Annotated[int, Field(ge=0)] = 0
    native: Literal["auto", "off"] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, config=STRICT)
class QueueSettings:
    """The rating queue: ``overlap`` people rate each prompt, ``ahead`` prompts have replies ready.

    ``repeat_share`` of what a person gets are hidden repeats; 0 is none. After ``lease_minutes``
    an item that was not rated goes to somebody else. ``ahead`` and ``overlap`` can be changed on
    the page too, which then goes before.
    """

    ahead: Annotated[int, Field(ge=0, le=64)] = 4
    overlap: Annotated[int, Field(ge=1, le=20)] = 1
    repeat_share: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    lease_minutes: Annotated[float, Field(ge=1.0, le=1440.0)] = 15.0


@dataclass(frozen=True, config=STRICT)
class ServeSettings:
    """Where the server listens, and whom it believes (docs/teams.md).

    ``hosts`` are names that it answers for besides its own, such as that of a proxy before it.
    ``trusted_proxies`` are addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are
    believed. In the environment, commas separate them. After ``session_days`` days people sign in
    again.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    hosts: Names = ()
    trusted_proxies: Names = ()
    session_days: Annotated[int, Field(ge=1, le=365)] = 30

    @property
    def is_for_this_computer(self) -> bool:
        """Whether only programs of this machine are meant to reach the server."""
        return is_loopback(self.host) and not self.hosts and not self.trusted_proxies
