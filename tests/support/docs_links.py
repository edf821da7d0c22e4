"""Links from the documents into the code: ``[file.py: symbol](../path/file.py#L12)``.

``python tests/support/docs_links.py`` (part of ``make fix``) puts the line numbers right.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
_SYMBOL = re.compile(r"^`?(?P<file>[\w.]+\.py): (?P<symbol>[\w.]+)`?$")
_ELSEWHERE = ("http://", "https://", "mailto:", "#")


@dataclass(frozen=True)
class Link:
    """A relative link. ``symbol`` and ``line`` are None where it names none."""

    document: Path
    text: str
    target: str

    @property
    def file(self) -> Path:
        """What it points to."""
        return (self.document.parent / self.target.partition("#")[0]).resolve()

    @property
    def line(self) -> int | None:
        """The line it points to."""
        _, _, anchor = self.target.partition("#")
        return int(anchor[1:]) if re.fullmatch(r"L\d+", anchor) else None

    @property
    def symbol(self) -> str | None:
        """The function, class, method, field or constant that its text names."""
        match = _SYMBOL.match(self.text)
        return match["symbol"] if match else None

    @property
    def named_file(self) -> str | None:
        """The file name that its text names."""
        match = _SYMBOL.match(self.text)
        return match["file"] if match else None


def documents() -> list[Path]:
    """The project's Markdown files."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def links(document: Path) -> Iterator[Link]:
    """Relative links of a document."""
    for match in _LINK.finditer(document.read_text(encoding="utf-8")):
        if not match["target"].startswith(_ELSEWHERE):
            yield Link(document, match["text"], match["target"])


@cache
def symbols(file: Path) -> dict[str, int]:
    """Line of every function, class and constant, and of what stands in classes: ``A.b``."""
    return dict(_defined(ast.parse(file.read_text(encoding="utf-8")), ""))


def _defined(parent: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node.lineno
            if isinstance(node, ast.ClassDef):
                yield from _defined(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield f"{prefix}{node.target.id}", node.lineno
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield f"{prefix}{target.id}", node.lineno


def corrected(document: Path) -> str:
    """The document's text with the line of every named symbol as it is now."""

    def replace(match: re.Match[str]) -> str:
        link = Link(document, match["text"], match["target"])
        if match["target"].startswith(_ELSEWHERE) or link.symbol is None or not link.file.is_file():
            return match[0]
        line = symbols(link.file).get(link.symbol)
        if line is None:
            return match[0]
        return f"[{match['text']}]({match['target'].partition('#')[0]}#L{line})"

    return _LINK.sub(replace, document.read_text(encoding="utf-8"))


def main() -> None:
    for document in documents():
        text = corrected(document)
        if text != document.read_text(encoding="utf-8"):
            document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
