"""Versions, rounds and the trainer's switch over HTTP."""

from __future__ import annotations

import pytest
from fake_server import serve_with_trainer

from storage import runs
from storage.records import Metric, Sample


@pytest.fixture
def trained(settings, engine):
    """A client of a server with a trainer, which is paused so that no process starts."""
    yield from serve_with_trainer(settings, engine)


def test_versions_say_which_is_live(client):
    listed = client.get("/api/versions").json()
    assert [(row["name"], row["live"]) for row in listed] == [("v0", True), ("v1", False)]
    assert client.get("/api/versions/v1").json() == listed[1]


def test_promoting_and_rolling_back_move_the_live_version(client, engine):
    assert client.post("/api/versions/v1/promote").json() == {"live_version": "v1"}
    assert engine.live == "v1"
    assert client.get("/api/health").json()["live_version"] == "v1"
    assert client.post("/api/versions/rollback").json() == {"live_version": "v0"}
    assert engine.live == "v0"


def test_without_a_previous_version_there_is_nothing_to_roll_back_to(client):
    answer = client.post("/api/versions/rollback")
    assert answer.status_code == 409


def test_a_broken_version_is_not_promoted_and_the_old_one_keeps_serving(client, engine):
    engine.broken.add("v1")
    answer = client.post("/api/versions/v1/promote")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "bad_version"
    assert engine.live == "v0"
    assert client.get("/api/versions/v1").json()["state"] == "quarantined"


def test_a_server_without_a_trainer_says_so(client):
    for path in ("/api/rounds", "/api/trainer/pause", "/api/trainer/resume"):
        answer = client.post(path)
        assert answer.status_code == 409
        assert "--no-trainer" in answer.json()["error"]["message"]
    assert client.get("/api/rounds").json() == []


def test_a_round_is_queued_once_and_can_be_cancelled(trained):
    asked = trained.post("/api/rounds", json={"stages": ["reward"]})
    assert asked.status_code == 200
    body = asked.json()
    assert (body["state"], body["stages"], body["requested_by"]) == ("queued", ["reward"], "local")
    assert trained.post("/api/rounds").status_code == 409
    assert [row["id"] for row in trained.get("/api/rounds").json()] == [body["id"]]
    cancelled = trained.post(f"/api/rounds/{body['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert trained.post(f"/api/rounds/{body['id']}/cancel").status_code == 409


def test_a_round_without_stages_has_them_all(trained):
    assert trained.post("/api/rounds", json={}).json()["stages"] == ["sft", "reward", "ppo"]


def test_pause_and_resume_show_in_health(trained):
    assert trained.get("/api/health").json()["trainer"]["state"] == "paused"
    resumed = trained.post("/api/trainer/resume").json()
    assert resumed["trainer"]["state"] == "idle"
    assert trained.post("/api/trainer/pause").json()["trainer"]["state"] == "paused"


def test_metrics_events_and_samples_of_a_round_are_shown(client, app):
    run = runs.enqueue_run(app.db, ("ppo",), "local", {}, 0)
    held = runs.claim_run(app.db, "worker", 1, "boot")
    values = [Metric("ppo", 0, "kl", 0.5), Metric("ppo", 1, "kl", float("nan"))]
    runs.add_metrics(app.db, run.id, held.fence, values)
    runs.add_samples(
        app.db, run.id, held.fence, [Sample("ppo", 0, "Hello", "Hi", 1.5, terms={"ranking": 1.5})]
    )
    runs.add_event(app.db, run.id, "info", "PPO has begun.")

    url = f"/api/rounds/{run.id}"
    metrics = client.get(f"{url}/metrics").json()
    assert [(row["step"], row["name"], row["value"]) for row in metrics] == [
        (0, "kl", 0.5),
        (1, "kl", None),
    ]
    later = client.get(f"{url}/metrics", params={"after": metrics[0]["id"]}).json()
    assert later == metrics[1:]
    assert client.get(f"{url}/metrics", params={"stage": "sft"}).json() == []
    (sample,) = client.get(f"{url}/samples").json()
    assert (sample["reply"], sample["terms"]) == ("Hi", {"ranking": 1.5})
    assert client.get(f"{url}/events").json()[0]["text"] == "PPO has begun."
    shown = client.get(url).json()
    assert shown["state"] == "running"
    assert "fence" not in shown
