"""Take the pictures of docs/tour.md again: ``make tour``, about ten minutes on two cores.

A fresh data folder, the embedded model, default settings, a real Chromium, and replies ranked by
length, the shortest first: one turn by keys, nineteen by the simulated rater, and after the round
turn by turn by keys again, until enough of them were blind duels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from find_chromium import HELP, find_chromium
from newcomer import ROUND_MS, Newcomer, Rater
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright
from real_server import RealServer

ROOT = Path(__file__).resolve().parents[2]
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
COLOURS = 256
BY_THE_RATER = 19  # and one by hand: the twenty that start a round
MOST_TURNS = 19  # after the round; the twentieth would start the next
DUELS = 4  # about one turn in five is one
QUESTIONS = (
    "How do I keep basil alive on a window sill?",
    "Suggest a name for a cat that sleeps all day.",
    "What should I check before buying a used bicycle?",
    "Explain what inflation is.",
    "Write two sentences to thank a neighbour who watered my plants.",
    "Why is the sky blue?",
    "How long do I boil an egg?",
    "Give me a tip for falling asleep.",
)


class Camera:
    """The same page at two widths; pictures go into one folder."""

    def __init__(self, browser: Browser, url: str, folder: Path) -> None:
        self._folder = folder
        options = {"locale": "en-GB", "reduced_motion": "reduce"}
        self.desktop = Newcomer(browser.new_context(**DESKTOP, **options).new_page(), url)
        self.phone = Newcomer(browser.new_context(**PHONE, **options).new_page(), url)

    def take(self, name: str, *, of: Newcomer | None = None) -> None:
        """A picture of what stands still."""
        page = (of or self.desktop).page
        page.wait_for_timeout(800)
        path = self._folder / f"tour-{name}.png"
        page.screenshot(path=path, animations="disabled")
        Image.open(path).convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).save(
            path, optimize=True
        )
        tell(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def walk(camera: Camera) -> None:
    """From the empty page to what is known of the new version."""
    rank_one(camera)
    train(camera)
    meet_in_a_duel(camera)
    look_around(camera)


def rank_one(camera: Camera) -> None:
    me, phone = camera.desktop.open(), camera.phone.open()
    camera.take("start")
    camera.take("start-phone", of=phone)
    me.tab("Training")
    expect(me.version("v0")).to_be_visible()
    camera.take("before")
    me.tab("Chat")
    me.click_example(2)
    order = me.shortest_first()
    me.keys(str(order[0]), str(order[1]))
    camera.take("ranking")
    me.keys(str(order[2]))
    expect(me.receipt).to_contain_text("to the next refit")
    camera.take("ranked")
    phone.open(me.conversation_id)
    camera.take("ranked-phone", of=phone)


def train(camera: Camera) -> None:
    me = camera.desktop
    rater = Rater(me.url, BY_THE_RATER)
    me.tab("Training")
    iterations = me.page.locator("[data-testid=chart][data-name='ppo/score']")
    expect(iterations).to_be_visible(timeout=ROUND_MS)
    expect(me.training_state).to_contain_text("PPO 7/", timeout=ROUND_MS)
    camera.take("training")
    iterations.scroll_into_view_if_needed()
    camera.take("curves")
    tell(f"{rater.done()['rankings']} rankings")
    expect(me.training_state).to_contain_text("Idle.", timeout=ROUND_MS)
    me.page.reload()
    expect(me.timeline).to_be_visible()
    tell(me.timeline.inner_text())
    camera.take("trained")


def meet_in_a_duel(camera: Camera) -> None:
    """Ask and rank; now and then the replies turn out to be of two versions."""
    me = camera.desktop
    me.tab("Is it better?")
    expect(me.verdict).to_contain_text("Nothing is known of v1 yet")
    camera.take("unknown")
    met = 0
    for number in range(MOST_TURNS):
        me.start_over()
        me.send(QUESTIONS[number % len(QUESTIONS)])
        me.wait_written()
        me.rank(me.shortest_first())
        if len(set(me.authors())) > 1:
            camera.take("duel")
            met += 1
        if met == DUELS:
            break
    me.tab("Is it better?")
    expect(me.verdict).to_contain_text("You preferred v1")
    camera.take("better")
    camera.phone.page.reload()
    camera.phone.tab("Is it better?")
    expect(camera.phone.verdict).to_contain_text("You preferred v1")
    camera.take("better-phone", of=camera.phone)


def look_around(camera: Camera) -> None:
    me = camera.desktop
    me.tab("Ratings")
    me.page.get_by_test_id("rating-row").first.click()
    camera.take("ratings")
    me.tab("Queue")
    expect(me.page.get_by_test_id("queue-body").get_by_test_id("reply-card")).to_have_count(4)
    expect(me.page.get_by_test_id("queue").locator(".is-writing")).to_have_count(0)
    camera.take("queue")
    me.tab("People")
    expect(me.page.get_by_test_id("first-account")).to_be_visible()
    camera.take("people")


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    folder = options.parse_args().images
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(HELP)
    folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=120_000)
    with tempfile.TemporaryDirectory() as data:
        server = RealServer(Path(data) / "data").wait_until_loaded()
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox"]
                )
                walk(Camera(browser, server.url, folder))
                browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
