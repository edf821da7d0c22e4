"""``chatrlhf people``: accounts, invitations and API keys.

It works on the data folder, whether the server runs or not: who can read it needs no password.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.terminal import Data, Json, open_rows, print_json, print_table, say, settings_of

if TYPE_CHECKING:
    from storage.database import Database
    from storage.records import Person

people_app = typer.Typer(
    help="Accounts: who may sign in, and what they may do.", no_args_is_help=True
)
keys_app = typer.Typer(help="API keys of a person, for programs.", no_args_is_help=True)
people_app.add_typer(keys_app, name="keys")

PASSWORD_VARIABLE = "CHATRLHF_PASSWORD"

Name = Annotated[str, typer.Argument(help="The person's name.")]
PasswordFromInput = Annotated[
    bool,
    typer.Option(
        "--password-stdin",
        help=f"Read the password from standard input (else {PASSWORD_VARIABLE}, else it is asked "
        "for). It is never an argument, which other users of the computer could read.",
    ),
]


class Role(StrEnum):
    """What a person may do; each role may do all that the ones before it may."""

    reader = "reader"
    rater = "rater"
    trainer = "trainer"
    admin = "admin"


@people_app.command("list")
def list_people(*, json_output: Json = False, data: Data = None) -> None:
    """List everybody, with how much is theirs and when they were last here."""
    from storage.accounts import list_summaries

    found = list_summaries(open_rows(settings_of(data)))
    if json_output:
        print_json([dataclasses.asdict(row) for row in found])
        return
    headings = ["name", "role", "signs in", "chats", "ratings", "last here"]
    print_table(
        headings,
        [
            [
                row.name,
                row.role,
                "yes" if row.has_account else "no",
                row.conversations,
                row.rankings,
                row.last_used_at,
            ]
            for row in found
        ],
    )


@people_app.command()
def add(
    name: Name,
    *,
    admin: Annotated[bool, typer.Option("--admin", help="The same as --role admin.")] = False,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.rater,
    password_stdin: PasswordFromInput = False,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Add a person with a password. The first one is an admin, and has all there is already.

    From then on, everybody signs in, on this computer too.
    """
    from chatrlhf.errors import BadInputError
    from storage import accounts, people
    from ui.passwords import hash_password

    db = open_rows(settings_of(data))
    wanted = "admin" if admin else role.value
    is_first = not people.has_accounts(db)
    if is_first and wanted != "admin":
        raise BadInputError("The first account must be an admin's: add --admin.")
    accounts.checked_name(name)
    hashed = hash_password(_password(from_input=password_stdin), name)
    if is_first:
        added = accounts.add_first_account(db, name, hashed)
    else:
        added = accounts.add_account(db, name, wanted, hashed)
    if json_output:
        print_json(_person_json(added))
        return
    say(f"{added.name} can sign in as {added.role}.")
    if is_first:
        say("What was chatted and rated here before is theirs. From now on, everybody signs in.")
        say("Invite others with: chatrlhf people invite")


@people_app.command("role")
def change_role(
    name: Name,
    role: Annotated[Role, typer.Argument(help="What they may do from now on.")],
    *,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Give a person another role; it counts at once."""
    from storage.accounts import set_role

    db = open_rows(settings_of(data))
    changed = set_role(db, _find(db, name).id, role.value)
    if json_output:
        print_json(_person_json(changed))
    else:
        say(f"{changed.name} is {changed.role} now.")


@people_app.command()
def password(name: Name, *, password_stdin: PasswordFromInput = False, data: Data = None) -> None:
    """Give a person a new password; all their sessions end, their API keys stay."""
    from storage.accounts import set_password
    from ui.passwords import hash_password

    db = open_rows(settings_of(data))
    person = _find(db, name)
    hashed = hash_password(_password(from_input=password_stdin), person.name)
    set_password(db, person.id, hashed)
    say(f"{person.name} has a new password, and is signed out everywhere.")


@people_app.command()
def invite(
    *,
    role: Annotated[Role, typer.Option(help="What they will be able to do.")] = Role.rater,
    note: Annotated[str, typer.Option(help="For whom it is; others who invite see it.")] = "",
    days: Annotated[int, typer.Option(min=1, max=90, help="How long it can be used.")] = 7,
    url: Annotated[
        str | None, typer.Option(help="Address at which others reach the server.")
    ] = None,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Make a link by which one person chooses a name and a password, once."""
    from chatrlhf.errors import ConflictError
    from storage import invitations, people
    from ui.login_page import invitation_path

    settings = settings_of(data)
    db = open_rows(settings)
    if not people.has_accounts(db):
        raise ConflictError("Make your own account first: chatrlhf people add --admin NAME")
    made, secret = invitations.invite(db, role.value, note=note, days=days)
    address = (url or f"http://{settings.serve.host}:{settings.serve.port}").rstrip("/")
    link = address + invitation_path(secret)
    if json_output:
        print_json({**dataclasses.asdict(made), "link": link})
        return
    say(f"Whoever opens this first becomes a {made.role}; it can be used until {made.expires_at}:")
    typer.echo(link)


@people_app.command()
def remove(
    name: Name,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask, since it cannot be undone.")
    ] = False,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Erase a person with their chats and ratings; marks the versions trained on these."""
    from storage.accounts import remove_person, summary_of

    db = open_rows(settings_of(data))
    person = summary_of(db, _find(db, name).id)
    if not yes:
        theirs = f"{person.conversations} chats and {person.rankings} ratings"
        typer.confirm(f"Erase {person.name} with {theirs}, for good?", abort=True, err=True)
    gone = remove_person(db, person.id)
    if json_output:
        print_json(dataclasses.asdict(gone))
    else:
        say(f"{gone.name} is gone, with {gone.conversations} chats and {gone.rankings} ratings.")
        say("Backups and exports made before still hold them.")


# --- keys ---------------------------------------------------------------------------------------


@keys_app.command("list")
def list_keys(name: Name, *, json_output: Json = False, data: Data = None) -> None:
    """List a person's keys: how they begin, and when they were last used."""
    from storage import sessions

    db = open_rows(settings_of(data))
    found = sessions.list_keys(db, _find(db, name).id)
    if json_output:
        print_json([dataclasses.asdict(row) for row in found])
        return
    headings = ["id", "for", "begins", "made", "last used", "revoked"]
    print_table(
        headings,
        [
            [row.id, row.name, row.hint, row.created_at, row.last_used_at, row.revoked_at]
            for row in found
        ],
    )


@keys_app.command("make")
def make_key(
    name: Name,
    label: Annotated[str, typer.Argument(help="What it is for, such as the program's name.")],
    *,
    json_output: Json = False,
    data: Data = None,
) -> None:
    """Make a key, and print it: it is shown this once."""
    from storage import sessions

    db = open_rows(settings_of(data))
    made, key = sessions.make_key(db, _find(db, name).id, label)
    if json_output:
        print_json({**dataclasses.asdict(made), "key": key})
    else:
        typer.echo(key)


@keys_app.command("revoke")
def revoke_key(
    name: Name,
    key: Annotated[int, typer.Argument(help="Its id in the list.")],
    *,
    data: Data = None,
) -> None:
    """End a key at once."""
    from storage import sessions

    db = open_rows(settings_of(data))
    ended = sessions.revoke_key(db, key, _find(db, name).id)
    say(f"The key {ended.hint}... for {ended.name} is no longer good.")


def _person_json(person: Person) -> dict[str, Any]:
    return dataclasses.asdict(person)


def _find(db: Database, name: str) -> Person:
    from chatrlhf.errors import NotFoundError
    from storage.people import find_person

    person = find_person(db, name)
    if person is None:
        raise NotFoundError(f"There is nobody called {name!r}. See: chatrlhf people list")
    return person


def _password(*, from_input: bool) -> str:
    """The new password: from standard input, the environment, or a question at the terminal."""
    from chatrlhf.errors import BadInputError

    if from_input:
        return sys.stdin.readline().rstrip("\r\n")
    given = os.environ.get(PASSWORD_VARIABLE)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise BadInputError(
            "There is no terminal to ask for the password at. Use --password-stdin, or the "
            f"environment variable {PASSWORD_VARIABLE}."
        )
    asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return asked
