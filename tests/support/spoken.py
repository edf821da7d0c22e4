"""What the page says: the English of every ``say()``, and its translations."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from chatrlhf.loop import evidence_words
from ui.board.board import ASSETS_DIR

_LOOP = Path(evidence_words.__file__).parent

_LITERAL = r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_CALL = re.compile(r"\bsay\(\s*")
_CALL_OF_LITERAL = re.compile(r"\bsay\(\s*" + _LITERAL + r"\s*[,)]")
_ENTRY = re.compile(r"^  (?:" + _LITERAL + r"|(\w+)):\s*" + _LITERAL + ",$", re.MULTILINE)
_ENTRY_BEGINS = re.compile(r"^  [^\s/].*?:(?:\s|$)", re.MULTILINE)


def modules() -> list[Path]:
    return sorted(path for path in ASSETS_DIR.glob("*.js") if path.name != "words.js")


def english() -> set[str]:
    """All that ``say()`` is called with, on the page and by the server."""
    found = {text for path in modules() for text in spoken_by(path)}
    found |= {text for name, text in vars(evidence_words).items() if _is_sentence(name, text)}
    return found | {text for path in server_modules() for text in spoken_by_the_server(path)}


def server_modules() -> list[Path]:
    return sorted(path for path in _LOOP.glob("*.py") if path.name != "sentences.py")


def spoken_by_the_server(path: Path) -> list[str]:
    """The templates that a module of the server calls ``say()`` with; each is a literal."""
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if _says(node)]
    texts = [call.args[0] for call in calls]
    assert all(isinstance(text, ast.Constant) for text in texts), f"{path.name}: not a literal"
    return [text.value for text in texts]


def spoken_by(path: Path) -> list[str]:
    return [_text(literal) for literal in _CALL_OF_LITERAL.findall(path.read_text("utf-8"))]


def calls_without_a_literal(path: Path) -> int:
    text = path.read_text("utf-8")
    return len(_CALL.findall(text)) - len(_CALL_OF_LITERAL.findall(text))


def translations(language: str) -> list[tuple[str, str, str]]:
    """(file, English, translation) of each entry; an entry of another form fails."""
    found = []
    for path in sorted((ASSETS_DIR / "languages").glob(f"{language}_*.js")):
        text = path.read_text("utf-8")
        entries = _ENTRY.findall(text)
        assert len(entries) == len(_ENTRY_BEGINS.findall(text)), f"{path.name}: unusual entries"
        found += [
            (path.name, _text(literal) if literal else name, _text(value))
            for literal, name, value in entries
        ]
    return found


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def _says(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say"


def _is_sentence(name: str, value: object) -> bool:
    return bool(re.fullmatch(r"_[A-Z][A-Z_]*", name)) and isinstance(value, str)


def _text(literal: str) -> str:
    if literal[0] == "'":
        literal = '"' + literal[1:-1].replace('"', '\\"') + '"'
    text: str = json.loads(literal)
    return text
