"""Kill -9 against the real trainer process: the chat goes on, nothing half-made is ever live."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tiny_loop import TinyLoop

from chatrlhf.app import build_app
from chatrlhf.engine.requests import Sampling
from chatrlhf.loop.publish import remove_orphans, verify_version
from chatrlhf.loop.supervisor import Pace, Supervisor
from chatrlhf.loop.turns import NewTurn
from chatrlhf.models.adapter_files import read_version
from storage import conversations, runs, versions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9"),
]

SUPPORT = Path(__file__).resolve().parents[1] / "support"
ROOT = SUPPORT.parents[1]
PATIENCE_SECONDS = 300.0
# Kills are many here, and the machine may be busy.
PATIENT = {"round": {"attempts": 9, "heartbeat_timeout_seconds": PATIENCE_SECONDS}}


@pytest.fixture
def loop(tmp_path, tiny_model):
    made = TinyLoop(tmp_path / "data", tiny_model, seed=1, **PATIENT)
    made.demonstrate()
    made.round("sft")
    yield made
    made.db.close()


@pytest.fixture
def chat(loop):
    """The app over the data folder, with the real engine, and a supervisor that looks often."""
    app = build_app(loop.settings, with_trainer=False)
    app.start()
    wait_for(lambda: app.status != "loading")
    assert app.status == "ok", app.message
    pace = Pace(poll=0.05, grace=2.0, retry=0.01)
    supervisor = Supervisor(
        loop.settings, app.db, on_new_version=app.live.poke, automatic=False, pace=pace
    )
    supervisor.start()
    yield SimpleNamespace(app=app, supervisor=supervisor, db=app.db)
    supervisor.stop()
    app.stop()


def test_a_trainer_killed_at_any_moment_is_resumed_and_the_chat_never_notices(loop, chat):
    before = versions.get_alias(chat.db, "live")
    loop.rank(64)
    run = chat.supervisor.request_round()
    moments = random.Random(5)
    checkpoint = loop.settings.runs_dir / str(run.id) / "checkpoints" / "ppo.safetensors"
    for wanted in (
        lambda: True,  # while it still imports
        lambda: runs.get_run(chat.db, run.id).stage == "reward",
        checkpoint.exists,
    ):
        process = wait_for(trainer_process)
        wait_for(lambda wanted=wanted: wanted() or is_over(chat, run))
        time.sleep(moments.uniform(0.0, 0.1))
        kill(process)
        assert_the_chat_answers(chat)
        assert_versions_are_whole(loop, chat)
    wait_for(lambda: is_over(chat, run))

    ended = runs.get_run(chat.db, run.id)
    texts = [event.text for event in runs.list_events(chat.db, run.id)]
    assert ended.state == "succeeded", texts
    killed = [text for text in texts if "killed by signal 9" in text]
    assert [text[:9] for text in killed] == ["Attempt 1", "Attempt 2", "Attempt 3"], texts
    assert any(text.startswith("PPO goes on at iteration") for text in texts)
    assert_versions_are_whole(loop, chat)
    assert remove_orphans(chat.db, loop.settings) == 0
    live = versions.get_alias(chat.db, "live")
    assert live == (ended.result_version or before)
    wait_for(lambda: chat.app.engine.live_version == live)
    assert_the_chat_answers(chat)


def test_a_trainer_that_is_killed_at_every_attempt_fails_the_round_with_a_reason(loop, chat):
    loop.rank(24)
    before = versions.get_alias(chat.db, "live")
    run = chat.supervisor.request_round()
    over = threading.Event()
    killer = threading.Thread(target=kill_each_trainer, args=(over,))
    killer.start()
    try:
        wait_for(lambda: runs.get_run(chat.db, run.id).state == "failed")
    finally:
        over.set()
        killer.join()
    ended = runs.get_run(chat.db, run.id)
    assert ended.message.startswith("Failed after 9 attempts: the trainer was killed by signal 9")
    assert chat.supervisor.status()["state"] == "failed"
    assert versions.get_alias(chat.db, "live") == before
    assert_versions_are_whole(loop, chat)
    assert_the_chat_answers(chat)


def test_a_publication_killed_at_any_step_leaves_the_old_version_or_the_new_one(loop):
    before = versions.get_alias(loop.db, "live")
    loop.enqueue()
    runs.claim_run(loop.db, "test", os.getpid(), "boot")
    loop.db.close()
    script = [sys.executable, str(SUPPORT / "publish_killed.py"), str(loop.settings.data_dir)]
    # One thread: the script forks.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        script, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    live = before
    outcomes = Counter()
    for line in lines:
        after, tidied = line["after"], line["tidied"]
        assert after["whole"] == after["known"], line
        newest = after["known"][-1]
        assert after["live"] in (live, newest), line
        outcomes["published" if after["live"] != live else "as before"] += 1
        outcomes["litter"] += after["folders"] != after["known"]
        live = after["live"]
        assert tidied == {**after, "folders": sorted(after["known"])}, line
    assert lines[-1]["status"] == 0
    # The sweep met all three: nothing happened yet, litter to clear, and fully new.
    assert outcomes["as before"] > 20
    assert outcomes["litter"] > 10
    assert outcomes["published"] > 1


def is_over(chat, run) -> bool:
    return runs.get_run(chat.db, run.id).state not in ("queued", "running")


def trainer_process() -> psutil.Process | None:
    """The trainer that the supervisor has started, if one runs."""
    for child in psutil.Process().children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE and "--run" in child.cmdline():
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def kill(process: psutil.Process) -> None:
    """Kill it, and wait until the supervisor has seen that."""
    process.kill()
    wait_for(lambda: not process.is_running())


def kill_each_trainer(over: threading.Event) -> None:
    moments = random.Random(6)
    while not over.is_set():
        process = trainer_process()
        if process is not None:
            time.sleep(moments.uniform(0.0, 0.5))
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)


def assert_the_chat_answers(chat) -> None:
    conversation = conversations.create_conversation(chat.db, chat.app.person.id)
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=6)
    live = chat.app.turns.start(
        conversation.id, NewTurn("letters 7", replies=4, seed=1, sampling=sampling)
    )
    assert live.log.wait_closed(PATIENCE_SECONDS)
    answered = conversations.get_turn(chat.db, live.turn.id)
    assert [reply.state for reply in answered.replies] == ["complete"] * 4
    assert {reply.version for reply in answered.replies} == {chat.app.engine.live_version}


def assert_versions_are_whole(loop, chat) -> None:
    """Every published version can be read; other folders are what the next start removes."""
    known = {version.name for version in versions.list_versions(chat.db)}
    for name in known:
        read_version(verify_version(chat.db, loop.settings, name))
    assert versions.get_alias(chat.db, "live") in known


def wait_for(condition, seconds: float = PATIENCE_SECONDS):
    """What ``condition`` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
