"""From a data folder and its settings to an engine that can answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chatrlhf.errors import ModelError, VersionError
from chatrlhf.loop.live_version import Verify
from chatrlhf.loop.ports import Engine
from chatrlhf.settings import Settings
from storage import runs, versions
from storage.database import Database

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Opened:
    """An engine that is not started yet, and the check of a version's files."""

    engine: Engine
    verify: Verify


OpenEngine = Callable[[Database, Settings, Progress], Opened]


def open_real_engine(db: Database, settings: Settings, progress: Progress) -> Opened:
    """Fetch and load the base model, publish the starter version, and build the engine."""
    progress("Starting", 0.0)
    # Imported here: torch takes seconds, and the page should be up before.
    from chatrlhf.engine.engine import Engine as RealEngine
    from chatrlhf.loop import publish
    from chatrlhf.models import catalog
    from chatrlhf.models.base_model import load_base_model
    from chatrlhf.models.lora import LoraBank

    model = settings.model
    folder = catalog.ensure_local(catalog.find_source(model.name), progress)
    progress("Loading the model", 0.0)
    base = load_base_model(folder, quantization=model.quantization, device=model.device)
    bank = LoraBank(base.model, model.lora_rank, model.lora_alpha)
    progress("Publishing the first version", 0.0)
    current = runs.current_run(db)
    if current is None or current.state == "queued":  # else a trainer may be publishing just now
        publish.remove_orphans(db, settings)
    publish.publish_starter(db, settings, base, bank)
    verify = partial(publish.verify_version, db, settings)
    refuse_another_base(db, verify, base.base_sha256)
    engine = RealEngine(base, bank, settings.engine, model.context_tokens)
    return Opened(engine, verify)


def refuse_another_base(db: Database, verify: Verify, base_sha256: str) -> None:
    """Versions of another base are not broken: they must not end up in quarantine."""
    live = versions.get_alias(db, "live")
    if live is None:
        return
    try:
        manifest = json.loads((verify(live) / "manifest.json").read_text(encoding="utf-8"))
    except VersionError:
        return  # broken indeed
    made_for = manifest.get("base", {})
    if made_for.get("sha256") != base_sha256:
        raise ModelError(
            f"The versions in this data folder belong to the model {made_for.get('name')!r}. Start "
            f"with --model {made_for.get('name')}, or choose another folder with --data."
        )
