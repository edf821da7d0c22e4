"""The Training tab: what it says, what it lists, and what its buttons do."""

from __future__ import annotations

import json
import shutil

import pytest
from chat_page import ChatPage
from playwright.sync_api import expect

from storage import runs, versions
from storage.database import open_database
from storage.records import Metric, Sample

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def rows(tiny_server):
    """The server's database, to write rows that a trainer would have written."""
    tiny_server.post("/api/trainer/pause")
    db = open_database(tiny_server.data_dir / "chatrlhf.db")
    yield db
    if open_round := runs.current_run(db):
        runs.cancel_run(db, open_round.id, "test")
    db.close()
    tiny_server.post("/api/trainer/resume")


def told(page, run_id):
    """What the page says became of a round."""
    return page.locator(f"[data-testid=round-picker] option[value='{run_id}']")


@pytest.fixture
def tab(new_page, tiny_server):
    chat = ChatPage(new_page(), tiny_server.url).open()
    chat.tab("Training")
    expect(chat.page.get_by_test_id("version").first).to_be_visible()
    return chat.page


def version(page, name):
    return page.locator(f"[data-testid=version][data-name={name}]")


def test_the_state_is_said_in_words_and_v0_is_listed(tab):
    expect(tab.get_by_test_id("training-state")).to_have_text(
        "Idle. Rounds start only when you ask for one."
    )
    expect(version(tab, "v0")).to_have_attribute("data-state", "live")
    expect(version(tab, "v0")).to_contain_text("The base model as it is")
    expect(tab.get_by_test_id("round")).to_contain_text("No round yet.")
    expect(tab.get_by_test_id("train-now")).to_be_enabled()
    expect(tab.get_by_test_id("pause")).to_have_text("Pause")
    expect(tab.get_by_test_id("rollback")).to_be_disabled()
    expect(tab.get_by_test_id("chip")).to_have_text("v0 live - idle")


def test_pause_is_stored_a_round_waits_and_is_told_so(tab, tiny_server):
    tab.get_by_test_id("pause").click()
    expect(tab.get_by_test_id("training-state")).to_contain_text("Paused.")
    paused = tiny_server.rows("SELECT value FROM state WHERE key = 'trainer'")
    assert json.loads(paused[0]["value"]) == {"paused": True}
    expect(tab.get_by_test_id("chip")).to_contain_text("training paused")
    tab.get_by_test_id("train-now").click()
    expect(tab.get_by_test_id("round")).to_contain_text("has just been asked for")
    asked = tiny_server.get("/api/rounds")[0]
    assert asked["state"] == "queued"
    assert asked["stages"] == ["sft", "reward", "ppo"]
    expect(told(tab, asked["id"])).to_contain_text("waiting to start")
    tiny_server.post(f"/api/rounds/{asked['id']}/cancel")
    expect(told(tab, asked["id"])).to_contain_text("cancelled")
    tab.get_by_test_id("pause").click()
    expect(tab.get_by_test_id("training-state")).to_contain_text("Idle.")


def test_a_round_shows_its_timeline_curves_samples_and_version(tab, tiny_server, rows):
    run = running_round(rows)
    beat(rows, run, stage="ppo", step=3, steps=24, eta=120.0)
    expect(tab.get_by_test_id("training-state")).to_have_text(
        "Training: PPO 3/24, about 2 min left. You can go on chatting."
    )
    expect(tab.get_by_test_id("train-now")).to_be_disabled()
    runs.add_metrics(
        rows, run.id, run.fence,
        [Metric("ppo", step, "score", step / 10) for step in (1, 2, 3)]
        + [Metric("reward", 0, "held_out_accuracy", 0.75)],
    )  # fmt: skip
    runs.add_event(rows, run.id, "gate_passed", "Held-out agreement 75%.")
    terms = {"ranking": 0.75, "label:toxic": -0.25}
    sample = Sample("ppo", 3, "<b>Hi</b>", "Hello.", 0.5, terms=terms)
    runs.add_samples(rows, run.id, run.fence, [sample])
    expect(tab.get_by_test_id("event")).to_contain_text(["Held-out agreement 75%."])
    expect(tab.get_by_test_id("curves").locator("svg")).not_to_have_count(0)
    expect(tab.get_by_test_id("samples")).to_contain_text("<b>Hi</b>")
    expect(tab.get_by_test_id("terms").locator("li")).to_have_text(["+0.75 ranking", "−0.25 toxic"])
    made = publish_copy(tiny_server, rows, run)
    runs.finish_run(rows, run.id, run.fence, "succeeded", f"{made} is live.", made)
    expect(version(tab, made)).to_have_attribute("data-state", "live")
    expect(version(tab, made)).to_contain_text("Trained on 20 rankings. Held-out agreement 0.75.")
    expect(version(tab, "v0")).to_contain_text("previous")
    expect(told(tab, run.id)).to_contain_text(f"made {made}")
    expect(tab.get_by_test_id("chip")).to_contain_text(f"{made} live")
    assert tiny_server.health()["live_version"] == made


def test_versions_are_promoted_and_rolled_back_by_buttons(tab, tiny_server, rows):
    run = running_round(rows)
    made = publish_copy(tiny_server, rows, run)
    runs.finish_run(rows, run.id, run.fence, "succeeded", f"{made} is live.", made)
    tiny_server.wait_for(lambda: tiny_server.health()["live_version"] == made)
    version(tab, "v0").get_by_test_id("use-version").click()
    expect(version(tab, "v0")).to_have_attribute("data-state", "live")
    assert tiny_server.health()["live_version"] == "v0"
    turn = tiny_server.ask("Hello", max_new_tokens=2)
    answered = tiny_server.get(f"/api/turns/{turn['turn_id']}?reveal=true")
    assert {reply["version"] for reply in answered["replies"]} == {"v0"}
    rollback = tab.get_by_test_id("rollback")
    expect(rollback).to_have_text(f"Roll back to {made}")
    rollback.click()
    expect(version(tab, made)).to_have_attribute("data-state", "live")
    assert tiny_server.health()["live_version"] == made
    actions = [row["action"] for row in tiny_server.rows("SELECT action FROM audit_log")]
    assert actions[-2:] == ["promote", "rollback"]


def test_a_round_that_was_not_promoted_says_why(tab, tiny_server, rows):
    live = tiny_server.health()["live_version"]
    run = running_round(rows)
    reason = "Not promoted: the reward model is no better than chance."
    runs.add_event(rows, run.id, "gate_failed", reason)
    runs.finish_run(rows, run.id, run.fence, "succeeded", reason, None)
    failed = tab.locator("[data-testid=event][data-kind=gate_failed]")
    expect(failed).to_contain_text("no better than chance")
    expect(told(tab, run.id)).to_contain_text("not promoted")
    expect(version(tab, live)).to_have_attribute("data-state", "live")


def test_a_failed_round_says_why(tab, tiny_server, rows):
    run = running_round(rows)
    runs.finish_run(rows, run.id, run.fence, "failed", "The loss diverged at step 3.")
    tiny_server.post("/api/trainer/resume")
    expect(tab.get_by_test_id("training-state")).to_contain_text("The loss diverged at step 3.")
    expect(tab.get_by_test_id("chip")).to_contain_text("training failed")


def test_the_open_tab_survives_a_reload(tab):
    tab.reload()
    expect(tab.get_by_test_id("training-state")).to_be_visible()


def running_round(rows):
    run = runs.enqueue_run(rows, ("sft", "reward", "ppo"), "test", {}, 0)
    return runs.claim_run(rows, "test", 1, "boot") or pytest.fail(f"{run} was not claimed")


def beat(rows, run, *, stage, step, steps, eta):
    assert runs.heartbeat(
        rows, run.id, run.fence, stage=stage, step=step, steps=steps, eta_seconds=eta, message=""
    )


def publish_copy(server, rows, run):
    """A version with the files of v0, published as the trainer does it; its name."""
    name = versions.next_version_name(rows)
    folder = server.data_dir / "versions"
    shutil.copytree(folder / "v0", folder / name)
    original = versions.get_version(rows, "v0")
    versions.publish(
        rows,
        run_id=run.id,
        fence=run.fence,
        name=name,
        parent="v0",
        manifest_sha256=original.manifest_sha256,
        metrics={"rankings": 20, "reward": {"accuracy": 0.75}},
        note="A copy of v0.",
        promote=True,
    )
    return name
