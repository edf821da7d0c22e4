"""The loop end to end on a tiny random-weight model: rows in, a live version out."""

import random

import pytest
import torch
from tiny_loop import TinyLoop

from chatrlhf.loop import worker
from chatrlhf.loop.intervals import bootstrap_interval
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.base_model import BaseModel
from chatrlhf.training import ppo
from chatrlhf.training.ppo import PpoTrainer
from storage import evidence, runs, versions


@pytest.fixture
def loop(tmp_path, tiny_model):
    made = TinyLoop(tmp_path / "data", tiny_model, seed=1)
    yield made
    made.db.close()


def taught(loop):
    loop.demonstrate()
    assert loop.round("sft").state == "succeeded"
    return versions.get_alias(loop.db, "live")


def test_rankings_become_a_live_version_that_the_rater_prefers(loop):
    before = taught(loop)
    loop.rank(64)
    run = loop.round()
    assert run.state == "succeeded", loop.events(run.id)
    live = versions.get_alias(loop.db, "live")
    assert live == run.result_version != before
    difference = loop.score_of(live) - loop.score_of(before)
    _, low, high = bootstrap_interval(difference.numpy())
    assert 0 < low <= high
    names = {metric.name for metric in runs.list_metrics(loop.db, run.id)}
    assert {"reward/loss", "reward/held_out_accuracy", "ppo/score", "ppo/kl"} <= names
    assert runs.list_samples(loop.db, run.id)
    assert "gate_passed" in {kind for kind, _ in loop.events(run.id)}
    files = read_version(loop.settings.versions_dir / live)
    assert set(files.components) == {"policy", "reward", "value"}
    assert files.manifest["parent"] == before


def test_the_next_round_first_tests_the_reward_model_that_is_live(loop):
    taught(loop)
    loop.rank(64)
    first = loop.round()
    live = first.result_version
    assert evidence.list_predictions(loop.db) == []  # there was none to test
    loop.rank(200)
    second = loop.round("reward")
    found = evidence.list_predictions(loop.db)
    assert found
    assert {one.version for one in found} == {live}
    assert min(one.ranking_id for one in found) > first.last_ranking_id
    right, pairs = sum(one.right_pairs for one in found), sum(one.pairs for one in found)
    assert right / pairs > 0.6  # it has learned the rater's taste
    told = [text for _, text in loop.events(second.id) if text.startswith("Before training")]
    assert told
    assert f"{right} of {pairs} pairs in {len(found)} new rankings" in told[0]
    loop.round("reward")
    assert evidence.list_predictions(loop.db) == found  # each is judged once


def test_demonstrations_alone_make_a_version(loop):
    before = versions.get_alias(loop.db, "live")
    assert taught(loop) != before
    answers = loop.answers([f"letters {n}" for n in range(400, 416)], seed=1)
    assert sum(finished for _, _, finished in answers) >= 12


def test_a_reward_model_that_is_no_better_than_chance_promotes_nothing(loop):
    before = taught(loop)
    coin = random.Random(1)
    loop.rank(16, score=lambda text: coin.random())
    run = loop.round()
    assert run.state == "succeeded"
    assert run.result_version is None
    assert versions.get_alias(loop.db, "live") == before
    assert any(kind == "gate_failed" and "chance" in text for kind, text in loop.events(run.id))


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_rankings_skip_the_round_and_say_how_many_are_needed(loop, count):
    if count:
        loop.rank(count)
    run = loop.round()
    assert run.state == "skipped"
    assert f"There are {count} rankings" in run.message
    assert "needs 8" in run.message


def test_rankings_that_tie_everything_skip_the_round(loop):
    loop.rank(10, score=lambda text: 0.0)
    run = loop.round()
    assert run.state == "skipped"
    assert "There are 0 rankings that order replies" in run.message


def test_a_round_without_demonstrations_asked_for_sft_is_skipped(loop):
    run = loop.round("sft")
    assert run.state == "skipped"
    assert "no demonstrations" in run.message


def test_a_killed_round_goes_on_from_its_checkpoint_to_the_same_weights(
    tmp_path, tiny_model, monkeypatch
):
    results = []
    for name in ("straight", "killed"):
        loop = TinyLoop(tmp_path / name, tiny_model, seed=1)
        taught(loop)
        loop.rank(64)
        run = loop.enqueue()
        if name == "killed":
            with monkeypatch.context() as patch:
                kill_after(patch, iterations=6)
                with pytest.raises(KeyboardInterrupt):
                    worker.run_one(loop.settings, run_id=run.id)
            runs.release_run(loop.db, run.id, "killed")
        worker.run_one(loop.settings, run_id=run.id)
        done = runs.get_run(loop.db, run.id)
        events = [text for _, text in loop.events(run.id)]
        assert ("PPO goes on at iteration 5." in events) == (name == "killed")
        assert done.attempts == (2 if name == "killed" else 1)
        assert done.result_version, events
        results.append(read_version(loop.settings.versions_dir / done.result_version))
        loop.db.close()
    straight, killed = results
    for key, tensor in straight.policy.lora.items():
        assert tensor.equal(killed.policy.lora[key]), key


def kill_after(patch, iterations):
    iteration = PpoTrainer.iteration

    def dying(self, prompts):
        if self.step == iterations:
            raise KeyboardInterrupt
        return iteration(self, prompts)

    patch.setattr(PpoTrainer, "iteration", dying)


def test_a_worker_that_lost_its_lease_publishes_nothing(loop, monkeypatch):
    before = taught(loop)
    loop.rank(64)
    run = loop.enqueue()
    publish = worker.publish_round

    def too_late(db, *arguments, **options):
        runs.release_run(db, run.id, "taken over")
        return publish(db, *arguments, **options)

    monkeypatch.setattr(worker, "publish_round", too_late)
    assert worker.run_one(loop.settings, run_id=run.id) == worker.LEASE_LOST
    assert versions.get_alias(loop.db, "live") == before
    assert {folder.name for folder in loop.settings.versions_dir.iterdir()} == {"v0", before}


def test_a_cancelled_round_stops_at_its_next_heartbeat(loop, monkeypatch):
    taught(loop)
    loop.rank(64)
    run = loop.enqueue()
    monkeypatch.setattr("chatrlhf.loop.progress.HEARTBEAT_SECONDS", 0.0)
    iteration = PpoTrainer.iteration

    def cancelled(self, prompts):
        if self.step == 2:
            runs.cancel_run(loop.db, run.id, "local")
        return iteration(self, prompts)

    monkeypatch.setattr(PpoTrainer, "iteration", cancelled)
    assert worker.run_one(loop.settings, run_id=run.id) == worker.LEASE_LOST
    assert runs.get_run(loop.db, run.id).state == "cancelled"


def test_a_loss_that_is_not_a_number_fails_the_round_with_a_reason(loop):
    taught(loop)
    loop.rank(64)
    loop.settings = loop.settings.__class__(
        **{
            **{name: getattr(loop.settings, name) for name in loop.settings.__dataclass_fields__},
            "ppo": loop.settings.ppo.__class__(learning_rate=1e30, max_new_tokens=8),
        }
    )
    run = loop.round()
    assert run.state == "failed"
    assert "diverged" in run.message
    assert "ppo.learning_rate" in run.message


def test_prompts_that_leave_no_room_for_a_reply_skip_the_round(tmp_path, tiny_model):
    loop = TinyLoop(tmp_path / "data", tiny_model, reward={"max_tokens": 16})
    loop.rank(16)
    run = loop.round()
    assert run.state == "skipped"
    assert "none has at most 4 tokens" in run.message
    loop.db.close()


def test_a_round_that_runs_out_of_memory_goes_on_with_fewer_replies_at_once(loop, monkeypatch):
    monkeypatch.setattr(ppo, "cores", lambda _: 1)
    taught(loop)
    loop.rank(64)
    body, start, rows = BaseModel.body, PpoTrainer.__init__, []

    def failing(self, input_ids, *arguments, **options):
        rows.append(input_ids.shape[0])
        if input_ids.shape[0] > 12:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return body(self, input_ids, *arguments, **options)

    def starting(*arguments, **options):
        monkeypatch.setattr(BaseModel, "body", failing)
        start(*arguments, **options)

    monkeypatch.setattr(PpoTrainer, "__init__", starting)
    run = loop.round()
    assert run.state == "succeeded", run.message
    assert max(rows) > 12
    assert run.result_version  # through the gates, too
    used = [m.value for m in runs.list_metrics(loop.db, run.id) if m.name == "ppo/micro_batch"]
    assert used == [8.0] * 12
