"""Links of the documents lead to what they name."""

from __future__ import annotations

from docs_links import ROOT, corrected, documents, links, symbols

# A link may be a few lines off: what it names is still on the screen.
SCREEN = 20

ALL = [link for document in documents() for link in links(document)]
NAMED = [link for link in ALL if link.symbol]


def problem_of(link):
    """Why a link that names a symbol does not lead there; None where it does."""
    line = symbols(link.file).get(link.symbol)
    if link.file.name != link.named_file or line is None:
        return f"{link.document.name}: {link.text}: {link.file.name} has no {link.symbol}"
    if link.line is None or abs(line - link.line) > SCREEN:
        return f"{link.document.name}: {link.text} is in line {line}; run: make fix"
    return None


def test_a_link_leads_to_a_file_of_the_project():
    outside = [link for link in ALL if not link.file.is_relative_to(ROOT)]
    missing = [link for link in ALL if not link.file.exists()]
    assert (outside, missing) == ([], [])


def test_a_link_leads_to_the_symbol_that_it_names():
    assert [problem for link in NAMED if (problem := problem_of(link))] == []


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
