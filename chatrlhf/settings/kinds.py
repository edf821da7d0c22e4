"""Kinds of values that settings have, and how they are read."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _words_of_text(value: object) -> object:
    """Environment variables hold lists with commas between the items."""
    if not isinstance(value, str):
        return value
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _weights_of_text(value: object) -> object:
    """Environment variables hold the weights as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f'it is no JSON object like {{"ranking": 1.0}} ({error})') from error


Quantization = Literal["auto", "nf4", "int8", "bf16", "fp32"]
ChoicePolicy = Literal["random", "best", "best-and-random"]
AskPolicy = Literal["every", "sometimes", "unsure"]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
LabelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
LabelNames = Annotated[tuple[LabelName, ...], BeforeValidator(_words_of_text)]
Names = Annotated[tuple[str, ...], BeforeValidator(_words_of_text)]
TermName = Annotated[str, Field(pattern=r"^(ranking|classifier|label:[a-z][a-z0-9_-]{0,39})$")]
TermWeight = Annotated[float, Field(allow_inf_nan=False)]
TermWeights = Annotated[dict[TermName, TermWeight], BeforeValidator(_weights_of_text)]
