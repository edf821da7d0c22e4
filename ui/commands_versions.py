"""``chatrlhf versions``: list, inspect, promote, roll back, verify, export and remove versions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ui.terminal import Data, Json, console, open_rows, print_json, print_table, say, settings_of

if TYPE_CHECKING:
    from chatrlhf.settings import Settings
    from storage.database import Database
    from storage.records import Version

app = typer.Typer(help="Adapter versions: what was trained, and which one is live.")

Name = Annotated[str, typer.Argument(help="A version, such as v3.")]
_ALIASES = ("live", "previous")


@app.callback(invoke_without_command=True)
def versions(context: typer.Context, *, json_output: Json = False, data: Data = None) -> None:
    """Adapter versions: what was trained, and which one is live. Alone: list."""
    if context.invoked_subcommand is None:
        list_all(json_output=json_output, data=data)


@app.command("list")
def list_all(*, json_output: Json = False, data: Data = None) -> None:
    """List all versions, the newest last."""
    from storage.versions import list_versions

    db = open_rows(settings_of(data))
    aliases = _aliases(db)
    found = [_described(version, aliases) for version in list_versions(db)]
    if json_output:
        print_json(found)
        return
    if not found:
        say("There are no versions yet: the first start of `chatrlhf serve` makes v0.")
        return
    print_table(
        ["name", "", "state", "parent", "round", "made at", "note"],
        [
            [
                row["name"],
                ", ".join(row["aliases"]),
                row["state"],
                row["parent"],
                row["run_id"],
                row["created_at"],
                row["note"],
            ]
            for row in found
        ],
    )


@app.command()
def show(name: Name, *, json_output: Json = False, data: Data = None) -> None:
    """Show one version with the numbers of its round."""
    from storage.versions import get_version

    db = open_rows(settings_of(data))
    row = _described(get_version(db, name), _aliases(db))
    if json_output:
        print_json(row)
        return
    metrics = row.pop("metrics")
    values = [(key, ", ".join(value) if key == "aliases" else value) for key, value in row.items()]
    print_table(["", name], [*values, *sorted(metrics.items())])


@app.command()
def promote(name: Name, data: Data = None) -> None:
    """Make a version the live one; a running server changes over between two replies."""
    from storage.people import operator
    from storage.versions import promote as promote_version

    db = open_rows(settings_of(data))
    promote_version(db, name, operator(db).name)
    say(f"{name} is live.")


@app.command()
def rollback(data: Data = None) -> None:
    """Make the version that was live before live again."""
    from storage.people import operator
    from storage.versions import rollback as roll_back

    db = open_rows(settings_of(data))
    say(f"{roll_back(db, operator(db).name)} is live again.")


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="A version, such as v3 (default: all).")
    ] = None,
    *,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Check the files of versions against their hashes; exit code 1 when one is damaged."""
    from storage.versions import get_version, list_versions

    settings = settings_of(data)
    db = open_rows(settings)
    chosen = [get_version(db, name)] if name else list(list_versions(db))
    removed = {version.name for version in chosen if _is_removed(settings, version)}
    problems = {
        version.name: None if version.name in removed else _problem(settings, version)
        for version in chosen
    }
    if json_output:
        print_json(problems)
    else:
        for version_name, problem in problems.items():
            fine = "its files were removed" if version_name in removed else "intact"
            say(f"{version_name}: {problem or fine}")
    raise typer.Exit(1 if any(problems.values()) else 0)


@app.command()
def gc(
    keep: Annotated[
        int, typer.Option(min=0, help="How many of the newest versions stay whatever their state.")
    ] = 10,
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove the files; without it they are only listed.")
    ] = False,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Remove the files of old versions: a dry run, unless --apply.

    Never those of the live or the previous version or of their parents. A version without files
    stays in the list and cannot go live any more.
    """
    from chatrlhf.loop.old_versions import old_versions, remove_old

    settings = settings_of(data)
    db = open_rows(settings)
    found = old_versions(db, settings, keep)
    if apply:
        for old in found:
            remove_old(db, settings, old)
    freed = sum(old.files_bytes for old in found)
    if json_output:
        rows = [dataclasses.asdict(old) for old in found]
        print_json({"removed": apply, "versions": rows, "files_bytes": freed})
        return
    if not found:
        say("There is nothing to remove.")
        return
    print_table(
        ["name", "state", "MB"],
        [[old.name, old.state, f"{old.files_bytes / 1e6:.1f}"] for old in found],
    )
    size = f"{freed / 1e6:.1f} MB"
    if apply:
        say(f"Removed the files of {len(found)} versions: {size} are free.")
    else:
        say(f"This would free {size}. Nothing was removed: add --apply to do it.")


@app.command()
def export(
    name: Name,
    target: Annotated[
        Path | None,
        typer.Argument(help="A new folder, or file for --gguf (default: NAME in this folder)."),
    ] = None,
    *,
    merged: Annotated[
        bool,
        typer.Option("--merged", help="A whole transformers model, the adapter in its weights."),
    ] = False,
    gguf: Annotated[
        bool, typer.Option("--gguf", help="A LoRA adapter for llama.cpp and its like.")
    ] = False,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Write a version for other programs: a peft folder, or with an option another form."""
    from chatrlhf.errors import BadInputError
    from chatrlhf.loop.publish import verify_version
    from chatrlhf.models import export_version

    if merged and gguf:
        raise BadInputError("--merged and --gguf are two forms; choose one, then the other.")
    settings = settings_of(data)
    folder = verify_version(open_rows(settings), settings, name)
    goal = target or Path(f"{name}.gguf" if gguf else name)
    if merged:
        files = _merge(settings, folder, goal)
    elif gguf:
        files = _gguf(settings, folder, goal)
    else:
        files = export_version.export_adapter(folder, goal)
    if json_output:
        print_json({"version": name, "files": [str(path.absolute()) for path in files]})
        return
    say(f"{name} is in {goal.absolute()}")


def _merge(settings: Settings, folder: Path, goal: Path) -> list[Path]:
    from chatrlhf.models.catalog import ensure_local, find_source
    from chatrlhf.models.export_version import export_merged

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(folder.name, total=1.0)

        def show(stage: str, fraction: float) -> None:
            progress.update(task, description=stage, completed=fraction)

        base = ensure_local(find_source(settings.model.name), show)
        return export_merged(folder, base, goal, show)


def _gguf(settings: Settings, folder: Path, goal: Path) -> list[Path]:
    from chatrlhf.models.catalog import ensure_local, find_source
    from chatrlhf.models.export_gguf import export_gguf

    base = ensure_local(find_source(settings.model.name), lambda _stage, _fraction: None)
    return [export_gguf(folder, base, goal)]


def _is_removed(settings: Settings, version: Version) -> bool:
    """Whether `gc` has removed its files."""
    gone = not (settings.versions_dir / version.name).exists()
    return gone and version.state in ("retired", "rejected")


def _problem(settings: Settings, version: Version) -> str | None:
    from chatrlhf.errors import VersionError
    from chatrlhf.models.adapter_files import read_version

    try:
        read_version(settings.versions_dir / version.name, version.manifest_sha256)
    except VersionError as error:
        return str(error)
    return None


def _aliases(db: Database) -> dict[str, str | None]:
    from storage.versions import get_alias

    return {alias: get_alias(db, alias) for alias in _ALIASES}


def _described(version: Version, aliases: dict[str, str | None]) -> dict[str, Any]:
    pointing = [alias for alias, name in aliases.items() if name == version.name]
    return {**dataclasses.asdict(version), "aliases": pointing}
