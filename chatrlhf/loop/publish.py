"""From weights to a version that the chat can use: files first, then one row, then the alias."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatrlhf.errors import VersionError
from chatrlhf.models.adapter_files import (
    POLICY,
    AdapterShape,
    Component,
    read_version,
    remove_leftovers,
    verify_folder,
    version_folder,
    write_version,
)
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.settings import Settings
from chatrlhf.training.starter import starter_folder
from storage import versions
from storage.database import Database
from storage.records import Run, Version

TRAINER = "trainer"


def publish_starter(db: Database, settings: Settings, base: BaseModel, bank: LoraBank) -> Version:
    """Make v0: the shipped starter adapter, or for another base an adapter that changes nothing.

    Returns the version that is live afterwards; does nothing when there is one.
    """
    live = versions.get_alias(db, "live")
    if live is not None:
        return versions.get_version(db, live)
    name = versions.next_version_name(db)
    component, fields, note = _starter(base, bank)
    remove_orphans(db, settings)
    sha256 = write_version(
        settings.versions_dir,
        name,
        {POLICY: component},
        AdapterShape(bank.rank, bank.alpha, bank.target_modules),
        {**fields, **base_fields(base, settings), "parent": None},
    )
    version = versions.register_version(
        db, name, None, None, sha256, fields.get("held_out_loss", {}), note
    )
    versions.promote(db, name, TRAINER)
    return version


def publish_round(
    db: Database,
    settings: Settings,
    run: Run,
    components: Mapping[str, Component],
    shape: AdapterShape,
    fields: Mapping[str, Any],
    *,
    note: str,
) -> Version:
    """Write a round's version and let it go live; nothing of it is left if the lease is lost.

    Raises:
        ConflictError: another worker holds the run, or it was cancelled.
        VersionError: the weights are not finite.
    """
    remove_orphans(db, settings)
    name = versions.next_version_name(db)
    sha256 = write_version(settings.versions_dir, name, components, shape, fields)
    try:
        return versions.publish(
            db,
            run_id=run.id,
            fence=run.fence,
            name=name,
            parent=fields["parent"],
            manifest_sha256=sha256,
            metrics=dict(fields["metrics"]),
            note=note,
            promote=True,
        )
    except BaseException:
        shutil.rmtree(settings.versions_dir / name, ignore_errors=True)
        raise


def base_fields(base: BaseModel, settings: Settings) -> dict[str, Any]:
    """The manifest's lines about the base."""
    return {"base": {"name": settings.model.name, "sha256": base.base_sha256}}


def verify_version(db: Database, settings: Settings, name: str) -> Path:
    """Check a version's files against the row that published it; returns its folder.

    Raises:
        NotFoundError: there is no such version.
        VersionError: it is quarantined, or its files changed.
    """
    version = versions.get_version(db, name)
    if version.state == "quarantined":
        raise VersionError(f"Version {name} is quarantined: {version.note}")
    folder = version_folder(settings.versions_dir, name)
    verify_folder(folder, version.manifest_sha256)
    return folder


def remove_orphans(db: Database, settings: Settings) -> int:
    """Delete folders that a killed publisher left: temporary ones, and ones without a row."""
    settings.versions_dir.mkdir(parents=True, exist_ok=True)
    removed = remove_leftovers(settings.versions_dir)
    known = {version.name for version in versions.list_versions(db)}
    for folder in settings.versions_dir.glob("v[0-9]*"):
        if folder.is_dir() and folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _starter(base: BaseModel, bank: LoraBank) -> tuple[Component, dict[str, Any], str]:
    if (starter_folder() / "manifest.json").exists():
        files = read_version(starter_folder())
        if files.manifest["base"]["sha256"] == base.base_sha256:
            bank.check_state(files.policy.lora)
            kept = {
                key: value
                for key, value in files.manifest.items()
                if key not in ("files", "format", "name", "base")
            }
            return files.policy, kept, "The starter adapter: SFT on the shipped demonstrations."
    bank.add("zero")
    try:
        component = Component(bank.state_of("zero"))
    finally:
        bank.remove("zero")
    return component, {}, "The base model as it is; nothing learned yet."
