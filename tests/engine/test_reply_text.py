"""Pieces of text: whole characters, nothing taken back, nothing after a stop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import write_tiny_tokenizer
from transformers import AutoTokenizer

from chatrlhf.engine.reply_text import ReplyText
from chatrlhf.models.chat_format import ChatFormat


@pytest.fixture(scope="module")
def chat_format(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder, "llama")
    return ChatFormat(AutoTokenizer.from_pretrained(folder))


def pieces_of(chat_format, content, stops=()):
    ids = chat_format.tokenizer.backend_tokenizer.encode(content, add_special_tokens=False).ids
    text = ReplyText(chat_format, stops)
    pieces = []
    for token in ids:
        pieces.append(text.add(token))
        if text.stopped:
            break
    pieces.append(text.finish())
    assert "".join(pieces) == text.text
    return text, pieces


def test_outer_white_space_is_not_shown(chat_format):
    text, pieces = pieces_of(chat_format, "\n  two  words \n\n")
    assert text.text == "two  words"
    assert "".join(pieces[:-1]) == "two  words"


def test_characters_of_several_bytes_come_whole(chat_format):
    text, pieces = pieces_of(chat_format, "né 👩‍👩‍👧 ok")
    assert text.text == "né 👩‍👩‍👧 ok"
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_stop_string_cuts_and_its_beginning_is_held_back(chat_format):
    text, pieces = pieces_of(chat_format, "yes. User: no", ["User:"])
    assert text.stopped
    assert text.text == "yes."
    assert "U" not in "".join(pieces)


def test_the_beginning_of_a_stop_string_is_shown_when_it_was_none(chat_format):
    text, _ = pieces_of(chat_format, "yes. Us", ["User:", ""])
    assert not text.stopped
    assert text.text == "yes. Us"


@settings(max_examples=80)
@given(
    content=st.text(alphabet="ab \n<é", max_size=24),
    stops=st.lists(st.text(alphabet="ab<", min_size=1, max_size=3), max_size=2),
)
def test_pieces_are_the_text_before_the_first_stop(chat_format, content, stops):
    text, _ = pieces_of(chat_format, content, stops)
    # Independent: at every prefix of the text, is a stop whole yet? The first one cuts.
    expected = content
    for end in range(len(content) + 1):
        found = [content[:end].find(stop) for stop in stops if stop in content[:end]]
        if found:
            expected = content[: min(found)]
            break
    assert text.text == expected.strip()
