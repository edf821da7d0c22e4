"""The trainer process: claim a round, run it with heartbeats, publish, end.

One process a round, so that its memory is returned when it ends and a crash costs one round.
The supervisor starts it; ``chatrlhf train`` runs the same in the foreground.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import uuid
from typing import Any

import psutil
import torch
from pydantic import TypeAdapter

from chatrlhf.errors import ChatRLHFError, ConflictError, RoundSkippedError, VersionError
from chatrlhf.loop.checkpoints import Checkpoints
from chatrlhf.loop.datasets import RoundData, load_round_data
from chatrlhf.loop.foretelling import foretell, foretelling_sentence
from chatrlhf.loop.incumbent import Incumbent
from chatrlhf.loop.progress import LeaseLostError, RunProgress
from chatrlhf.loop.publish import base_fields, publish_round, publish_starter, verify_version
from chatrlhf.loop.round import Round
from chatrlhf.loop.sentences import as_it_is, joined, say
from chatrlhf.loop.trainer_state import crashes_of
from chatrlhf.loop.verdicts import convergence
from chatrlhf.models.adapter_files import REWARD, AdapterFiles, AdapterShape, read_version
from chatrlhf.models.base_model import BaseModel, load_base_model
from chatrlhf.models.catalog import ensure_local, find_source
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_terms import CLASSIFIER
from chatrlhf.settings import Settings
from storage import demonstrations, evidence, run_log, runs, versions
from storage.database import Database, open_database
from storage.records import Run

logger = logging.getLogger(__name__)

SUCCEEDED, FAILED, NOTHING_TO_DO, LEASE_LOST = 0, 1, 3, 4
TRAINED_DEMONSTRATION = "trained_demonstration_id"
_ROUNDS_LOOKED_AT = 20
ROUND_SETTINGS = ("sft", "reward", "ppo", "round")


def run_one(settings: Settings, *, run_id: int | None = None) -> int:
    """Claim the queued round, run it and store how it ended; returns the exit code.

    0: succeeded or skipped. 1: failed, the reason is stored. 3: there was nothing to do.
    4: another worker took the round over, or a person cancelled it.
    """
    db = open_database(settings.database_path)
    # Probabilities too small for a normal float would cost fifty times as much each.
    torch.set_flush_denormal(True)
    try:
        queued = runs.current_run(db)
        if queued is None or queued.state != "queued" or run_id not in (None, queued.id):
            return NOTHING_TO_DO
        run = runs.claim_run(db, f"worker-{uuid.uuid4().hex[:12]}", os.getpid(), boot_id())
        return NOTHING_TO_DO if run is None else _execute(db, settings, run)
    finally:
        torch.set_flush_denormal(False)
        db.close()


def _execute(db: Database, settings: Settings, run: Run) -> int:
    progress = RunProgress(db, run)
    settings = _with_stored(settings, run, crashes_of(db, run.id))
    try:
        message, version = _train_and_publish(db, settings, run, progress)
    except RoundSkippedError as skipped:
        progress.event("info", as_it_is(*skipped.args))
        runs.finish_run(db, run.id, run.fence, "skipped", str(skipped))
        return SUCCEEDED
    except (LeaseLostError, ConflictError) as lost:
        logger.warning("stopped: %s", lost)
        return LEASE_LOST
    except ChatRLHFError as error:
        progress.event("error", as_it_is(error))
        runs.finish_run(db, run.id, run.fence, "failed", str(error))
        return FAILED
    runs.finish_run(db, run.id, run.fence, "succeeded", message, version)
    _checkpoints(settings, run, "").clear()
    return SUCCEEDED


def _train_and_publish(
    db: Database, settings: Settings, run: Run, progress: RunProgress
) -> tuple[str, str | None]:
    """The round's message, and the name of its version if it has one."""
    if published := versions.versions_of_run(db, run.id):
        return f"{published[-1].name} is live.", published[-1].name
    if settings.round.trainer_threads:
        torch.set_num_threads(settings.round.trainer_threads)
    progress.stage("loading", 100)
    folder = ensure_local(
        find_source(settings.model.name),
        lambda text, fraction: progress.step(round(100 * fraction), 100, text),
    )
    base = load_base_model(
        folder,
        quantization=settings.model.quantization,
        device=settings.model.device,
        training=True,
    )
    bank = LoraBank(base.model, settings.model.lora_rank, settings.model.lora_alpha)
    parent = publish_starter(db, settings, base, bank)
    files = read_version(verify_version(db, settings, parent.name), parent.manifest_sha256)
    data = load_round_data(db, base.chat_format, settings, run.last_ranking_id)
    runs.set_dataset(db, run.id, run.fence, data.dataset_hash, data.last_ranking_id)
    newest_demonstration = demonstrations.newest_id(db)
    trained = int(runs.get_state(db, TRAINED_DEMONSTRATION, 0))
    progress.event(
        "info",
        say(
            "Training from {version} on {rankings} rankings of {prompts} prompts and "
            "{demonstrations} demonstrations.",
            version=parent.name,
            rankings=len(data.rankings),
            prompts=data.ranked_prompts,
            demonstrations=len(data.demonstrations),
        ),
    )
    incumbent = _incumbent(files)
    if incumbent is not None and "reward" in run.stages:
        _foretell(db, incumbent, parent.name, base, bank, data, progress)
    identity = f"{data.dataset_hash}/{base.base_sha256}/{parent.manifest_sha256}"
    outcome = Round(
        base=base,
        bank=bank,
        settings=settings,
        data=data,
        stages=run.stages,
        parent=files.policy.lora,
        checkpoints=_checkpoints(settings, run, identity),
        progress=progress,
        new_demonstrations=demonstrations.count_new(db, trained),
        incumbent=incumbent,
    ).run()
    if converged := convergence(score_gains(db)):
        progress.event("info", converged)
    if not outcome.promoted:
        return outcome.message, None
    fields = {
        **base_fields(base, settings),
        "parent": parent.name,
        "dataset_sha256": data.dataset_hash,
        "last_ranking_id": data.last_ranking_id,
        "metrics": outcome.metrics,
    }
    if settings.reward.weights.get(CLASSIFIER):
        # So that a server can score by the same classifier, whatever its settings say by then.
        fields["classifier"] = {
            "name": settings.reward.classifier,
            "label": settings.reward.classifier_label,
            "reads": settings.reward.classifier_input,
        }
    version = publish_round(
        db,
        settings,
        run,
        outcome.components,
        AdapterShape(bank.rank, bank.alpha, bank.target_modules),
        fields,
        note=outcome.message,
    )
    runs.set_state(db, TRAINED_DEMONSTRATION, newest_demonstration)
    told = (say("{version} is live.", version=version.name), *outcome.sentences)
    progress.event("info", *told)
    return joined(told), version.name


def _incumbent(files: AdapterFiles) -> Incumbent | None:
    component = files.components.get(REWARD)
    if component is None:
        return None
    return Incumbent(component, int(files.manifest.get("last_ranking_id", 0)))


def _foretell(
    db: Database,
    incumbent: Incumbent,
    version: str,
    base: BaseModel,
    bank: LoraBank,
    data: RoundData,
    progress: RunProgress,
) -> None:
    """Store what the live reward model says of new rankings, before anything learns from them."""
    known = evidence.predicted_rankings(db)
    try:
        found = foretell(incumbent, version, base, bank, data.rankings, known)
    except VersionError as error:
        told = say("The live reward model could not be tested: {error}", error=str(error))
        progress.event("info", told)
        return
    if found:
        evidence.add_predictions(db, found)
        progress.event("info", foretelling_sentence(found))


def _with_stored(settings: Settings, run: Run, crashes: int) -> Settings:
    """The settings that the round was asked for with, where its row holds some."""
    stored: dict[str, Any] = {}
    for name in ROUND_SETTINGS:
        if isinstance(run.settings.get(name), dict):
            kind = type(getattr(settings, name))
            stored[name] = TypeAdapter(kind).validate_python(run.settings[name])
    settings = dataclasses.replace(settings, **stored)
    # An attempt that died may have run out of memory; halving costs little time.
    micro_batch = max(settings.round.micro_batch >> crashes, 1)
    return dataclasses.replace(
        settings, round=dataclasses.replace(settings.round, micro_batch=micro_batch)
    )


def _checkpoints(settings: Settings, run: Run, identity: str) -> Checkpoints:
    return Checkpoints(settings.runs_dir / str(run.id) / "checkpoints", identity)


def boot_id() -> str:
    """Identifies this start of the machine."""
    return str(int(psutil.boot_time()))


def score_gains(db: Database) -> list[float]:
    """Rise of the mean score in the newest rounds that got to the gates, oldest first."""
    gains = []
    for run in runs.list_runs(db, _ROUNDS_LOOKED_AT):
        found = run_log.list_metrics(db, run.id, stage="gates")
        scores = {metric.step: metric.value for metric in found if metric.name == "gates/score"}
        if len(scores) == 2:
            gains.append(scores[1] - scores[0])
    return gains[::-1]
