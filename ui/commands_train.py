"""``chatrlhf train``: one round in the foreground, a watch, or (hidden) the trainer process."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ui.terminal import Data, Model, console, open_rows, say, settings_of

if TYPE_CHECKING:
    from chatrlhf.loop.supervisor import Supervisor
    from chatrlhf.settings import Settings
    from storage.database import Database
    from storage.records import Run

_POLL_SECONDS = 0.5
_TERMINATED = 143


class StageChoice(StrEnum):
    """What ``--stage`` takes."""

    sft = "sft"
    reward = "reward"
    ppo = "ppo"
    all = "all"


def train(
    *,
    stage: Annotated[
        StageChoice, typer.Option(help="Only this stage of the round, or all of them.")
    ] = StageChoice.all,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Stay, and start a round whenever enough rankings are new."),
    ] = False,
    run: Annotated[int | None, typer.Option(hidden=True, help="Execute this queued round.")] = None,
    nice: Annotated[int, typer.Option(hidden=True, help="Lower the priority by this.")] = 0,
    parent: Annotated[
        int | None, typer.Option(hidden=True, help="End when this process ends.")
    ] = None,
    model: Model = None,
    data: Data = None,
) -> None:
    """Train a round from the rankings: SFT, reward model, PPO, gates, publish."""
    settings = settings_of(data, model={"name": model})
    if run is not None:
        _execute(settings, run, nice, parent)
    with _orderly_termination():
        if watch:
            _watch(settings)
        raise typer.Exit(_one_round(settings, stage))


def _execute(settings: Settings, run_id: int, nice: int, parent: int | None) -> NoReturn:
    """Be the trainer process of one round."""
    from chatrlhf.loop.trainer_process import be_nice, end_with_parent

    if parent is not None:
        end_with_parent(parent)
    if nice:
        be_nice(nice)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from chatrlhf.loop.worker import run_one

    raise typer.Exit(run_one(settings, run_id=run_id))


def _watch(settings: Settings) -> NoReturn:
    """Look after the trainer until Ctrl-C."""
    from chatrlhf.loop.supervisor import Supervisor

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    supervisor = Supervisor(settings, open_rows(settings))
    supervisor.start()
    try:
        with console.status("") as line:
            while True:
                line.update(_status_text(supervisor))
                time.sleep(_POLL_SECONDS)
    finally:
        supervisor.stop()


def _one_round(settings: Settings, stage: StageChoice) -> int:
    """Queue a round, see it through, and return the exit code."""
    from chatrlhf.errors import DataFolderBusyError
    from chatrlhf.loop.supervisor import Supervisor, is_paused, set_paused

    db = open_rows(settings)
    if is_paused(db):
        say("The trainer was paused; it is resumed.")
        set_paused(db, paused=False)
    supervisor = Supervisor(settings, db, automatic=False)
    try:
        supervisor.start()
    except DataFolderBusyError:
        say("The trainer of the running server does the work; Ctrl-C only stops watching.")
        return _follow(db, _queued_round(supervisor, db, stage).id)
    try:
        return _follow(db, _queued_round(supervisor, db, stage).id)
    finally:
        supervisor.stop()


def _queued_round(supervisor: Supervisor, db: Database, stage: StageChoice) -> Run:
    from chatrlhf.loop.trigger import ALL_STAGES
    from storage.runs import current_run

    waiting = current_run(db)
    if waiting is not None:
        say(f"Round {waiting.id} is {waiting.state} already: following it.")
        return waiting
    stages = [name for name in ALL_STAGES if stage in (name, StageChoice.all)]
    return supervisor.request_round(stages, "the command line")


def _follow(db: Database, run_id: int) -> int:
    """Show a round until it ends, from its rows; 0 unless it failed."""
    from storage import runs

    shown_event = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"round {run_id}: starting", total=None)
        while True:
            run = runs.get_run(db, run_id)
            for event in runs.list_events(db, run_id, after_id=shown_event):
                shown_event = event.id
                say(event.text)
            text = f"round {run_id}: {run.stage or run.state}"
            progress.update(task, description=text, completed=run.step, total=run.steps or None)
            if run.state not in ("queued", "running"):
                break
            time.sleep(_POLL_SECONDS)
    say(f"Round {run_id} {run.state}. {run.message}")
    if run.result_version:
        say(f"It made {run.result_version}.")
    return 0 if run.state in ("succeeded", "skipped") else 1


def _status_text(supervisor: Supervisor) -> str:
    status = supervisor.status()
    if status["state"] == "running":
        return f"round {status['run_id']}: {status['stage']} {status['step']}/{status['steps']}"
    if status["state"] in ("queued", "paused"):
        return f"{status['state']}: {status['message']}"
    if status["next_refit_in"] is None:
        return "waiting for a round to be asked for (Ctrl-C ends)"
    return f"{status['next_refit_in']} more rankings to the next round (Ctrl-C ends)"


@contextmanager
def _orderly_termination() -> Iterator[None]:
    """SIGTERM leaves through ``finally`` blocks, so that a round is handed back."""

    def leave(*_: object) -> NoReturn:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
