from __future__ import annotations

import pytest

from storage.conversations import create_conversation
from storage.search import find_conversations


@pytest.fixture
def add(db, me, make_turn):
    def make(title, text):
        made = create_conversation(db, me.id, title=title)
        make_turn(text=text, conversation_id=made.id)
        return made.id

    return make


@pytest.fixture
def found(db, me):
    return lambda words: [hit.conversation.id for hit in find_conversations(db, me.id, words)]


@pytest.mark.parametrize("words", ["über", "ÜBER", "Über", "üBER uns", "UNS ÜBER"])
def test_case_does_not_matter_in_any_alphabet(add, found, words):
    made = [add("Erzähl", text) for text in ("Über uns", "ÜBER UNS", "alles über uns")]
    add("Erzähl", "unter uns")
    assert found(words) == made[::-1]


def test_what_stands_for_anything_in_sql_stands_for_itself(add, found):
    sale = add("Sale", "100% off_season!")
    add("Other", "1000 offXseason?")
    for words in ("0% off", "off_s", "season!"):
        assert found(words) == [sale]


def test_the_excerpt_is_around_the_first_word(db, me, add):
    add("Tea", "a" * 100 + " Ärger " + "b" * 200)
    (hit,) = find_conversations(db, me.id, "ärger tea")
    assert "Ärger" in hit.excerpt
    assert hit.excerpt.startswith("...")
    assert hit.excerpt.endswith("...")
    assert len(hit.excerpt) < 120
