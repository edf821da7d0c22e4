"""``chatrlhf backup``, ``restore``, ``check`` and ``doctor``: the care of a data folder."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ui.terminal import Data, Json, open_rows, print_json, print_table, say, settings_of

if TYPE_CHECKING:
    from chatrlhf.loop.examination import Finding

_MARKS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


def backup(
    output: Annotated[
        Path | None,
        typer.Option(help="File or folder to write to (default: backups in the data folder)."),
    ] = None,
    *,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Copy the database, while the server runs if it does, and check the copy.

    It holds conversations, ratings, people and the history of training. The adapters themselves
    are the folders in versions/, which never change once they are there: copy these as they are.
    """
    from chatrlhf.errors import BadInputError
    from storage.backup import write_backup

    settings = settings_of(data)
    if not settings.database_path.exists():
        raise BadInputError(f"{settings.data_dir} has no database, so there is nothing to back up.")
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    target = (output or settings.data_dir / "backups").expanduser().absolute()
    if output is None or target.is_dir():
        target = target / f"chatrlhf-{moment}.db"
    if target.exists():
        raise BadInputError(f"{target} is there already. Choose another name.")
    try:
        write_backup(open_rows(settings).connection(), target)
    except OSError as error:
        raise BadInputError(f"{target} cannot be written: {error}. Choose another.") from error
    size = target.stat().st_size
    if json_output:
        print_json({"file": str(target), "bytes": size})
    else:
        say(f"{target} holds a checked copy of the database ({size / 1e6:.1f} MB).")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `chatrlhf backup` wrote.")],
    *,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Put a backup in the place of the database, which is kept in backups/.

    The server must not run meanwhile. Versions that were published after the backup are unknown
    to it: keep a copy of versions/ if you may want to come back.
    """
    from storage.backup import restore_backup
    from storage.database import lock_data_folder

    settings = settings_of(data)
    with lock_data_folder(settings.data_dir):
        aside = restore_backup(file, settings.database_path)
        open_rows(settings).close()  # brings an older schema up to date
    if json_output:
        restored = str(settings.database_path)
        print_json({"database": restored, "replaced": None if aside is None else str(aside)})
        return
    say(f"{settings.database_path} is now what {file} holds.")
    if aside is not None:
        say(f"What stood there is kept as {aside}")


def check(*, json_output: Json = False, data: Data = None) -> None:
    """Look for damage: every page, reference, reply, audit entry and version file.

    Exit code 1 when something is damaged.
    """
    from chatrlhf.loop.examination import check_data

    _show(check_data(settings_of(data)), json_output=json_output)


def doctor(*, json_output: Json = False, data: Data = None) -> None:
    """Say whether this computer can run the program, and what to change where it cannot.

    Exit code 1 when something must be changed.
    """
    from chatrlhf.loop.doctor import examine

    _show(examine(lambda: settings_of(data)), json_output=json_output)


def _show(findings: Iterable[Finding], *, json_output: bool) -> None:
    found = list(findings)
    if json_output:
        print_json([dataclasses.asdict(one) for one in found])
    else:
        rows = [[_MARKS[one.state], one.name, _told(one)] for one in found]
        print_table(["", "what", "finding"], rows)
    raise typer.Exit(1 if any(one.state == "failed" for one in found) else 0)


def _told(finding: Finding) -> str:
    if not finding.advice:
        return finding.detail
    return f"{finding.detail.rstrip('.')}.\n-> {finding.advice}"
