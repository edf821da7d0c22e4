"""Every text of the Chat screen has a German one, with the same placeholders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from ui.board.board import ASSETS_DIR

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node")

SAID = re.compile(r"""\bsay\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
# Modules of the Chat screen: what chat.js imports, and what that imports.
ENTRY = "chat.js"


def chat_modules() -> set[str]:
    found, todo = set(), [ENTRY]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        text = (ASSETS_DIR / name).read_text(encoding="utf-8")
        todo += re.findall(r'from "\./([a-z_]+\.js)"', text)
    return found


def said(name: str) -> set[str]:
    text = (ASSETS_DIR / name).read_text(encoding="utf-8")
    return {json.loads(f'"{found[1:-1]}"') if found[0] == '"' else found[1:-1]
            for found in SAID.findall(text)}  # fmt: skip


def german(file: str) -> dict[str, str]:
    """The texts of a file of a language, which is one object."""
    source = (ASSETS_DIR / "languages" / file).read_text(encoding="utf-8")
    source = source.replace("export default", "const german =")
    command = [str(NODE), "--eval", source + "console.log(JSON.stringify(german));"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_every_text_of_the_chat_is_translated_and_none_is_idle():
    texts = set().union(*(said(name) for name in chat_modules()))
    assert len(texts) > 150
    files = [path.name for path in (ASSETS_DIR / "languages").glob("de_*.js")]
    assert texts - set().union(*(german(name) for name in files)) == set()
    everywhere = set().union(*(said(path.name) for path in ASSETS_DIR.glob("*.js")))
    assert german("de_chat.js").keys() - everywhere == set()


def test_translations_keep_the_placeholders():
    for english, translated in german("de_chat.js").items():
        places = [sorted(re.findall(r"\{\w+\}", text)) for text in (english, translated)]
        assert places[0] == places[1], english
