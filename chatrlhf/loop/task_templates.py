"""Kinds of tasks that prompts are written by: a text goes in, a whole prompt comes out.

To add one, add it to `TEMPLATES`; the page and the command line show what is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chatrlhf.errors import BadInputError


@dataclass(frozen=True)
class TemplateField:
    """A text that a person gives; ``default`` is taken where it is left out."""

    name: str
    label: str
    placeholder: str
    default: str = ""
    is_long: bool = True


@dataclass(frozen=True)
class TaskTemplate:
    """A kind of task: ``pattern`` has a place in braces for each field; the first is ``text``."""

    name: str
    title: str
    hint: str
    pattern: str
    fields: tuple[TemplateField, ...]
    tag: str = ""


def _text(label: str, placeholder: str) -> TemplateField:
    return TemplateField("text", label, placeholder)


TEMPLATES: tuple[TaskTemplate, ...] = (
    TaskTemplate(
        "chat",
        "Chat",
        "A message as a person would send it.",
        "{text}",
        (_text("Message", "What should I cook tonight?"),),
    ),
    TaskTemplate(
        "summarise",
        "Summarise",
        "A text that is to be made short.",
        "Summarise this text in two or three sentences.\n\n{text}",
        (_text("Text to summarise", "Paste a text of some paragraphs"),),
        "summarise",
    ),
    TaskTemplate(
        "rewrite",
        "Rewrite",
        "A text that is to be said in another way.",
        "Rewrite this text so that it is {manner}. Keep its meaning.\n\n{text}",
        (
            _text("Text to rewrite", "Paste a text"),
            TemplateField("manner", "How", "friendlier", "clearer and shorter", is_long=False),
        ),
        "rewrite",
    ),
    TaskTemplate(
        "classify",
        "Classify",
        "A text that belongs to one of several classes.",
        "Which of these fits the text best: {classes}? Answer with one of them, and say why in "
        "one sentence.\n\nText: {text}",
        (
            _text("Text to classify", "Paste a text"),
            TemplateField(
                "classes",
                "Classes",
                "positive, negative",
                "positive, negative, neutral",
                is_long=False,
            ),
        ),
        "classify",
    ),
    TaskTemplate(
        "answer",
        "Answer from a text",
        "A question whose answer is in a text.",
        "Answer the question from the text only. If the text does not say, say so.\n\n"
        "Question: {question}\n\nText: {text}",
        (
            _text("Text that has the answer", "Paste a text"),
            TemplateField(
                "question", "Question", "Who is it about?", "What is it about?", is_long=False
            ),
        ),
        "answer",
    ),
)


def find_template(name: str) -> TaskTemplate:
    """The template of this name, or BadInputError with the names there are."""
    for template in TEMPLATES:
        if template.name == name:
            return template
    known = ", ".join(template.name for template in TEMPLATES)
    raise BadInputError(f"there is no task template {name!r}; the templates are {known}")


def fill_template(template: TaskTemplate, values: Mapping[str, str]) -> str:
    """The prompt that the texts make.

    Raises:
        BadInputError: a text is missing that has no default, or is of no field.
    """
    known = {field.name for field in template.fields}
    for name in values:
        if name not in known:
            raise BadInputError(
                f"{template.name} has no field {name!r}; its fields are {', '.join(sorted(known))}"
            )
    filled = {}
    for field in template.fields:
        text = values.get(field.name, "").strip() or field.default
        if not text:
            raise BadInputError(f"{field.label} is empty; write something first")
        filled[field.name] = text
    return template.pattern.format_map(filled)
