"""Replies as Markdown: what is drawn, and what hostile text cannot do in it."""

from __future__ import annotations

import pytest
from chat_page import ChatPage
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]

RICH = r"""## Tides

The **Moon** pulls, so *two bulges* form; see [NOAA](https://example.org/tides "title").

| Body | Pull |
|:--|--:|
| Moon | 2.2 |

1. First
   - nested `code`
2. Second

```python
def f(x):
    return "<b>"
```

- [x] done
- [ ] open

> Quoted.

It is $F = G\frac{m_1 m_2}{r^2}$, not $5 or $6.

$$\sum_{i=1}^{n} i$$
"""


@pytest.fixture
def show(new_page, scripted, screen):
    """A page whose reply 1 is a text; the text as it is drawn."""

    def shown(*texts: str) -> ChatPage:
        scripted.engine.texts = list(texts)
        turn = scripted.ask("Hello")
        return ChatPage(new_page(screen), scripted.url).open(turn["conversation_id"])

    return shown


def test_blocks_and_spans_are_drawn(show):
    chat = show(RICH)
    text = chat.text(1)
    for selector, words in {
        "h4": "Tides",
        "strong": "Moon",
        "em": "two bulges",
        "ol > li > ul > li": "nested code",
        "blockquote p": "Quoted.",
        "pre code": 'def f(x):\n    return "<b>"',
        "thead th:nth-child(2)": "Pull",
        "tbody td[data-side=end]": "2.2",
    }.items():
        expect(text.locator(selector)).to_have_text(words)
    expect(text.locator("ol > li")).to_have_count(2)
    expect(text.locator("thead")).to_be_visible()
    cells = [cell.bounding_box() for cell in text.locator("tbody td").all()]
    assert cells[0]["y"] == cells[1]["y"]
    assert cells[0]["x"] + cells[0]["width"] <= cells[1]["x"] + 1
    expect(text.get_by_text("☑ done")).to_be_visible()
    expect(text.locator("math")).to_have_count(2)
    expect(text.locator("mfrac > mrow").first).to_have_text("m1m2")
    expect(text.get_by_text("not $5 or $6.")).to_be_visible()
    widths = chat.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


def test_links_open_elsewhere_and_tell_nothing(show):
    link = show("See [there](https://example.org/a_(b)) or https://example.org/c.").text(1)
    first, second = link.locator("a").all()
    for found, url in ((first, "https://example.org/a_(b)"), (second, "https://example.org/c")):
        assert found.get_attribute("href") == url
        assert found.get_attribute("target") == "_blank"
        assert set(found.get_attribute("rel").split()) == {"noopener", "noreferrer", "nofollow"}


def test_links_and_code_in_a_reply_rank_nothing(show):
    chat = show("[there](#) https://example.org/\n\n```\ncode\n```")
    chat.text(1).get_by_test_id("copy-code").click()
    assert chat.ranks() == [None] * 4


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:window.canary=1)",
        "[x](data:text/html,<script>window.canary=1</script>)",
        "[x](vbscript:x) <javascript:window.canary=1>",
        "![x](https://canary.example/x.png)",
        '<img src="https://canary.example/y.png" onerror="window.canary=1">',
        "```html\n<script>window.canary=1</script>\n```",
        "$\\href{javascript:window.canary=1}{x}$ $\\constructor{x}$ $\\__proto__$",
        "$\\begin{constructor}1\\end{constructor}$ $\\mathbb{constructor}$",
        "|<b>a</b>|b|\n|-|-|\n|<img src=x onerror=window.canary=1>|c|",
        "[<img src=x onerror=window.canary=1>](https://example.org)",
    ],
)
def test_hostile_markdown_stays_text(show, text):
    chat = show(text)
    expect(chat.text(1)).not_to_be_empty()
    assert chat.page.evaluate("typeof window.canary") == "undefined"
    active = "img, svg, script, iframe, b, form, [onerror], [style]"
    expect(chat.text(1).locator(active)).to_have_count(0)
    links = chat.text(1).locator("a")
    assert all(a.get_attribute("href").startswith("https://") for a in links.all())


def test_unseen_characters_are_marked_in_code_links_and_formulas_too(show):
    hidden = "\u202e"
    chat = show(
        f"`a{hidden}b` [c{hidden}d](https://example.org) $x{hidden}$\n\n```\ne{hidden}\n```"
    )
    expect(chat.text(1).locator(".unseen")).to_have_count(4)
    assert hidden not in chat.text(1).inner_text()
    chat = show(f"https://example.org/{hidden}gpj.exe")
    assert chat.text(1).locator("a").get_attribute("href") == "https://example.org/"


@pytest.mark.parametrize(
    "text",
    ["**a " * 15000, "$x " * 20000, "[" * 40000, "> " * 20000, "- a\n\n\n" * 8000, "|" * 50000,
     "`" * 3 + " " * 50000 + "`", "# " + " " * 50000 + "x", "\\[\n" * 15000, "{" * 40000,
     "$" + "{" * 20000 + "}" * 20000 + "$", "_a " * 20000, "a|b\n-|-\n" + "a|b\n" * 9000],
)  # fmt: skip
def test_no_text_keeps_the_page_busy(chromium, page_server, text):
    page = chromium.new_page()
    page.goto(page_server.url)
    milliseconds = page.evaluate(
        """async (text) => {
          const { markdown } = await import("/board/markdown.js");
          const start = performance.now();
          markdown(text);
          return performance.now() - start;
        }""",
        text,
    )
    page.close()
    assert milliseconds < 3000, f"{milliseconds:.0f} ms"


def test_formulas_that_are_not_understood_are_shown_as_written(show):
    chat = show("$\\unknown{x} + 1$ and $\\frac{a}$")
    expect(chat.text(1).locator("code.tex")).to_have_text(["\\unknown{x} + 1", "\\frac{a}"])


def test_plain_text_shows_what_was_written_and_is_remembered(show):
    chat = show("**bold** and\n\n- item")
    expect(chat.text(1).locator("strong")).to_have_text("bold")
    chat.page.get_by_test_id("settings").click()
    chat.page.get_by_test_id("setting-plain").check()
    expect(chat.text(1)).to_have_text("**bold** and - item")
    expect(chat.text(1).locator("strong")).to_have_count(0)
    chat.page.reload()
    expect(chat.text(1)).to_have_text("**bold** and - item")
    chat.prefer("plain", value=False)


def test_a_reply_is_copied_as_written_and_its_code_alone(show, scripted):
    chat = show("**bold**\n\n```\nx = 1\n```")
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=scripted.url)
    read = "navigator.clipboard.readText()"
    chat.card(1).get_by_test_id("copy").click()
    expect(chat.card(1).get_by_test_id("copy")).to_have_text("Copied")
    assert chat.page.evaluate(read) == "**bold**\n\n```\nx = 1\n```"
    chat.card(1).get_by_test_id("copy-code").click()
    expect(chat.card(1).get_by_test_id("copy-code")).to_have_text("Copied")
    assert chat.page.evaluate(read) == "x = 1"
    chat.page.get_by_test_id("board").focus()
    chat.keys("y")
    chat.page.wait_for_function(f"async () => (await {read}).startsWith('**bold**')")


def test_a_reply_is_read_aloud_without_its_signs(show):
    chat = show("**Bold** words. See [there](https://example.org).\n\n```\ncode\n```")
    chat.page.evaluate(
        """() => {
          window.spoken = [];
          speechSynthesis.speak = (utterance) => window.spoken.push(utterance);
        }"""
    )
    listen = chat.card(1).get_by_test_id("listen")
    listen.click()
    expect(listen).to_have_attribute("aria-pressed", "true")
    said = " ".join(chat.page.evaluate("window.spoken.map((one) => one.text)")).split()
    assert said == ["Bold", "words.", "See", "there.", "(code)"]
    chat.page.evaluate("window.spoken.at(-1).onend()")
    expect(listen).to_have_attribute("aria-pressed", "false")
    expect(listen).to_have_text("Listen")
