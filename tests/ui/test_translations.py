"""Each text of the page has its German, with the same placeholders, and no German is left over."""

from __future__ import annotations

from spoken import calls_without_a_literal, english, modules, placeholders, spoken_by, translations

GERMAN = {text: german for _, text, german in translations("de")}

# These say sentences of the server, which `english()` knows.
NOT_LITERAL = {"evidence.js": 1, "round_view.js": 1}


def test_every_text_is_a_literal_that_can_be_found():
    found = {path.name: calls_without_a_literal(path) for path in modules()}
    assert {name: n for name, n in found.items() if n} == NOT_LITERAL


def test_the_texts_are_found_however_they_are_written(tmp_path):
    module = tmp_path / "a.js"
    module.write_text(
        """say("One."); say('Two "2".');\nsay(\n  "Three {n}",\n  { n: 3 },\n); say(x)"""
    )
    assert spoken_by(module) == ["One.", 'Two "2".', "Three {n}"]
    assert calls_without_a_literal(module) == 1
    assert len(english()) > 500


def test_every_text_has_its_german():
    assert sorted(english() - set(GERMAN)) == []


def test_no_german_is_left_over_or_there_twice():
    assert sorted(set(GERMAN) - english()) == []
    texts = [text for _, text, _ in translations("de")]
    assert sorted({text for text in texts if texts.count(text) > 1}) == []


def test_german_keeps_placeholders_and_ends_as_the_english_does():
    changed = {
        text: german
        for text, german in GERMAN.items()
        if placeholders(german) != placeholders(text)
        or not german.strip()
        or german != german.strip()
    }
    assert changed == {}
    ends = {
        text for text, german in GERMAN.items() if text[-1] in ".?:!" and german[-1] != text[-1]
    }
    assert ends == set()
