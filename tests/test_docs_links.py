"""Links of the documents lead to what they name."""

from __future__ import annotations

import pytest
from docs_links import ROOT, corrected, documents, links, symbols

# A link may be a few lines off: what it names is still on the screen.
SCREEN = 20

ALL = [link for document in documents() for link in links(document)]
NAMED = [link for link in ALL if link.symbol]


def name_of(link):
    return f"{link.document.name}: {link.text}"


@pytest.mark.parametrize("link", ALL, ids=name_of)
def test_a_link_leads_to_a_file(link):
    assert link.file.exists()
    assert link.file.is_relative_to(ROOT)


@pytest.mark.parametrize("link", NAMED, ids=name_of)
def test_a_link_leads_to_the_symbol_that_it_names(link):
    assert link.file.name == link.named_file
    known = symbols(link.file)
    assert link.symbol in known, f"{link.file} has no {link.symbol}; correct {link.document}"
    assert link.line is not None, "run: make fix"
    assert abs(known[link.symbol] - link.line) <= SCREEN, "run: make fix"


def test_the_training_documents_link_their_details():
    named = [link.document.name for link in NAMED]
    assert named.count("training.md") >= 30
    assert named.count("concepts.md") >= 15


def test_fixing_puts_line_numbers_right_and_leaves_other_links_alone(tmp_path):
    (tmp_path / "code.py").write_text(
        "LIMIT = 3\n\n\nclass Agent:\n    def act(self):\n        pass\n"
    )
    document = tmp_path / "text.md"
    document.write_text(
        "[code.py: Agent.act](code.py#L1) [code.py: LIMIT](code.py) [code](code.py) "
        "[code.py: gone](code.py#L9) [paper](https://example.org/code.py)"
    )
    assert corrected(document) == (
        "[code.py: Agent.act](code.py#L5) [code.py: LIMIT](code.py#L1) [code](code.py) "
        "[code.py: gone](code.py#L9) [paper](https://example.org/code.py)"
    )
