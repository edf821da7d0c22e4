"""Versions, rounds and the trainer's switch over HTTP."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
from fake_server import serve_with_trainer
from peft import PeftConfig
from safetensors.torch import load_file

from chatrlhf.models.adapter_files import AdapterShape, Component, write_version
from storage import runs, versions
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


def test_old_versions_are_listed_first_and_removed_when_told(client, app):
    for name in ("v0", "v1"):
        folder = app.settings.versions_dir / name
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"x" * 10)
    versions.register_version(app.db, "v2", "v1", None, "", {}, "")
    versions.promote(app.db, "v2", "local")
    versions.set_alias(app.db, "previous", "v2")
    body = {"keep": 0}
    listed = client.post("/api/versions/gc", json=body).json()
    # v1 is the parent of the live version.
    assert listed == {
        "removed": False,
        "versions": [{"name": "v0", "state": "ready", "files_bytes": 10}],
        "files_bytes": 10,
    }
    assert (app.settings.versions_dir / "v0").is_dir()
    removed = client.post("/api/versions/gc", json={**body, "dry_run": False}).json()
    assert removed["removed"] is True
    assert not (app.settings.versions_dir / "v0").exists()
    assert client.get("/api/versions/v0").json()["state"] == "retired"
    assert client.post("/api/versions/gc").json()["versions"] == []
    assert client.post("/api/versions/gc", json={"keep": -1}).status_code == 422


def test_an_adapter_is_downloaded_as_a_folder_that_peft_reads(client, app, tmp_path):
    lora = {
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{letter}.weight": torch.ones(shape)
        for letter, shape in (("A", (2, 5)), ("B", (3, 2)))
    }
    shape = AdapterShape(2, 2.0, ("q_proj",))
    sha256 = write_version(
        app.settings.versions_dir, "v2", {"policy": Component(lora)}, shape, {"base": {}}
    )
    versions.register_version(app.db, "v2", None, None, sha256, {}, "")
    answer = client.get("/api/versions/v2/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="v2.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    assert PeftConfig.from_pretrained(tmp_path / "v2").r == 2
    found = load_file(tmp_path / "v2" / "adapter_model.safetensors")
    assert {key: tensor.tolist() for key, tensor in found.items()} == {
        key: tensor.tolist() for key, tensor in lora.items()
    }
    assert client.get("/api/versions/v9/export").status_code == 404
    assert client.get("/api/versions/v1/export").status_code == 409  # it has no files
