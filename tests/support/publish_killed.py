"""Publish versions again and again, killed (-9) at the first step, at the second, and so on.

Run as a script: ``publish_killed.py DATA_DIR``. The folder holds a version and a claimed round. For
each step at which it was killed it prints a line of JSON: what is live and in the folder right
after, and what is there once the next start has tidied up. It ends with the first publication
that was not killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from chatrlhf.errors import ChatRLHFError
from chatrlhf.loop.publish import publish_round, remove_orphans, verify_version
from chatrlhf.models.adapter_files import AdapterShape, read_version, write_version
from chatrlhf.settings import load_settings
from storage import runs, versions
from storage.database import open_database


def publish(settings, deadly_step: int) -> None:
    """Publish v0's weights as a new version; killed before or after the n-th step on the way."""
    db = open_database(settings.database_path)
    seen = 0

    def step(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == deadly_step:
            os.kill(os.getpid(), signal.SIGKILL)

    files = read_version(settings.versions_dir / "v0")
    shape = json.loads((settings.versions_dir / "v0" / "adapter_config.json").read_text())
    os.fsync = around(os.fsync, step)
    Path.rename = around(Path.rename, step)
    Path.write_bytes = around(Path.write_bytes, step)
    db.connection().conn.set_trace_callback(step)  # each SQL statement is a step, COMMIT too
    publish_round(
        db,
        settings,
        runs.current_run(db),
        files.components,
        AdapterShape(shape["r"], shape["lora_alpha"], tuple(shape["target_modules"])),
        {"parent": "v0", "metrics": {}, "base": files.manifest["base"]},
        note="made to be killed",
    )
    step()


def around(call, step):
    """The call with a step before and after it."""

    def wrapped(*arguments, **options):
        step()
        result = call(*arguments, **options)
        step()
        return result

    return wrapped


def state(settings) -> dict:
    """Names of the versions that the rows know, of the folders, and of those that verify."""
    db = open_database(settings.database_path)
    known = [version.name for version in versions.list_versions(db)]
    whole = []
    for name in known:
        try:
            read_version(verify_version(db, settings, name))
            whole.append(name)
        except ChatRLHFError:
            pass
    live = versions.get_alias(db, "live")
    db.close()
    folders = sorted(folder.name for folder in settings.versions_dir.iterdir())
    return {"live": live, "known": known, "whole": whole, "folders": folders}


def tidy(settings) -> None:
    """What the server does at its next start."""
    db = open_database(settings.database_path)
    remove_orphans(db, settings)
    db.close()


def warm_up(settings) -> None:
    """Have everything imported before the first fork."""
    files = read_version(settings.versions_dir / "v0")
    with tempfile.TemporaryDirectory() as folder:
        shape = AdapterShape(1, 1.0, ())
        write_version(Path(folder), "v0", files.components, shape, {"parent": None})


def main(data_dir: str) -> None:
    settings = load_settings(Path(data_dir), environment={})
    warm_up(settings)
    step, killed = 0, True
    while killed:
        step += 1
        if (child := os.fork()) == 0:
            publish(settings, step)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status)
        after = state(settings)
        tidy(settings)
        line = {"step": step, "status": status, "after": after, "tidied": state(settings)}
        print(json.dumps(line), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
