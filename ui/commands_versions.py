"""``chatrlhf versions``: list, inspect, promote, roll back and verify adapter versions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.terminal import Data, Json, open_rows, print_json, print_table, say, settings_of

if TYPE_CHECKING:
    from chatrlhf.settings import Settings
    from storage.database import Database
    from storage.records import Version

app = typer.Typer(help="Adapter versions: what was trained, and which one is live.")

Name = Annotated[str, typer.Argument(help="A version, such as v3.")]
_ALIASES = ("live", "previous")


@app.callback(invoke_without_command=True)
def versions(context: typer.Context) -> None:
    """Adapter versions: what was trained, and which one is live. Alone: list."""
    if context.invoked_subcommand is None:
        list_all()


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
    from storage.people import ensure_local_person
    from storage.versions import promote as promote_version

    db = open_rows(settings_of(data))
    promote_version(db, name, ensure_local_person(db).name)
    say(f"{name} is live.")


@app.command()
def rollback(data: Data = None) -> None:
    """Make the version that was live before live again."""
    from storage.people import ensure_local_person
    from storage.versions import rollback as roll_back

    db = open_rows(settings_of(data))
    say(f"{roll_back(db, ensure_local_person(db).name)} is live again.")


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
    problems = {version.name: _problem(settings, version) for version in chosen}
    if json_output:
        print_json(problems)
    else:
        for version_name, problem in problems.items():
            say(f"{version_name}: {problem or 'intact'}")
    raise typer.Exit(1 if any(problems.values()) else 0)


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
