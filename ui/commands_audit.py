"""``chatrlhf audit``: who changed what, and whether the log of it is whole."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ui.terminal import Data, Json, open_rows, print_json, print_table, say, settings_of

audit_app = typer.Typer(help="The audit log: who changed what.", no_args_is_help=True)


@audit_app.callback()
def audit_log() -> None:
    """The audit log, which is only ever added to."""


@audit_app.command("list")
def list_entries(
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest ones.")] = 50,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """List who changed what, newest first."""
    from storage import audit, people
    from storage.values import to_json

    db = open_rows(settings_of(data))
    entries = audit.newest_audit(db, limit=limit)
    if json_output:
        print_json([dataclasses.asdict(entry) for entry in entries])
        return
    names = {person.id: person.name for person in people.list_people(db)}
    print_table(
        ["id", "when", "who", "what", "detail"],
        [
            [
                entry.id,
                entry.created_at,
                _who(entry.person_id, names),
                entry.action,
                to_json(entry.detail),
            ]
            for entry in entries
        ],
    )


@audit_app.command()
def verify(
    *,
    since: Annotated[
        str | None,
        typer.Option(help="A hash that an earlier verify printed: nothing before it may differ."),
    ] = None,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Check that no entry was changed or removed. Exit code 1 when one was.

    Note the hash that it prints somewhere else: who can write the database could chain the whole
    log anew, and only --since HASH would show it.
    """
    from storage import audit

    db = open_rows(settings_of(data))
    broken = audit.broken_audit_entry(db)
    is_known = since is None or audit.holds_hash(db, since)
    newest = audit.newest_hash(db)
    is_intact = broken is None and is_known
    if json_output:
        print_json({"intact": is_intact, "broken_id": broken, "sha256": newest})
    elif broken is not None:
        say(f"Entry {broken} was changed or removed, or one before it was.")
    elif not is_known:
        say(f"No entry has the hash {since}: entries were changed, or it is of another log.")
    else:
        say(f"The log is whole. Its newest hash: {newest}")
    raise typer.Exit(0 if is_intact else 1)


def _who(person_id: int | None, names: dict[int, str]) -> str:
    if person_id is None:
        return "the program or the command line"
    return names.get(person_id, f"person {person_id}, removed")
