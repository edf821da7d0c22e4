"""Which format a record has: decided for each record by what is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange import argilla, label_studio, open_webui, pairs
from chatrlhf.loop.exchange.examples import Found

Reader = Callable[[Mapping[str, Any]], Found]

_FORMS = (
    "this program's own export, chosen and rejected (hh-rlhf, TRL), prompt and completion, "
    "messages, or a record of Argilla, Label Studio or Open WebUI"
)


def find_examples(row: Mapping[str, Any]) -> Found:
    """The examples of a record of another program.

    Raises:
        BadInputError: it has no known format, or nothing of use; says which and what to do.
    """
    try:
        return _reader(row)(row)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Exports of other programs come in more shapes than their documents tell.
        raise BadInputError(
            f"its form is not the expected one ({type(error).__name__}: {error})"
        ) from error


def _reader(row: Mapping[str, Any]) -> Reader:
    if label_studio.is_label_studio(row):
        return label_studio.found_label_studio
    if label_studio.is_minimal(row):
        raise BadInputError("it is of the export JSON-MIN of Label Studio. Export as JSON instead")
    if open_webui.is_feedback(row):
        return open_webui.found_feedback
    if open_webui.is_chat(row):
        return open_webui.found_chat
    if argilla.is_argilla(row):
        return argilla.found_argilla
    return _plain_reader({name for name, value in row.items() if value is not None})


def _plain_reader(names: set[str]) -> Reader:
    if {"chosen", "rejected"} <= names:
        return pairs.found_pair
    if {"prompt", "completion"} <= names:
        return pairs.found_completion
    if "messages" in names:
        return pairs.found_messages
    if names & {"chosen", "rejected", "completion"}:
        missing = "chosen and rejected" if "completion" not in names else "prompt and completion"
        raise BadInputError(f"it has {', '.join(sorted(names)[:6])}; it needs both {missing}")
    if "prompt" in names:
        return pairs.found_prompt
    found = ", ".join(sorted(map(str, names))[:6]) or "nothing"
    raise BadInputError(f"it has {found}, which is no known format; known are {_FORMS}")
