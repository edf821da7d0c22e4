"""The command line: parse and dispatch only. Heavy imports happen inside the commands."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from chatrlhf.errors import ChatRLHFError
from ui import (
    commands_api,
    commands_audit,
    commands_backup,
    commands_exchange,
    commands_imports,
    commands_models,
    commands_people,
    commands_prompts,
    commands_simulate,
    commands_train,
    commands_versions,
)
from ui.terminal import Data, Model, settings_of

_ERROR = 2
_INTERRUPTED = 130
# Options that belong to the program; any other option first on the line belongs to `serve`.
_OWN_OPTIONS = ("--help", "--version", "--install-completion", "--show-completion")

app = typer.Typer(
    name="chatrlhf",
    help="Chat with a local language model, rank its replies, and watch it learn from you.\n\n"
    "Without a command it serves the chat: `chatrlhf` is `chatrlhf serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(commands_models.app, name="models")
app.add_typer(commands_versions.app, name="versions")
app.add_typer(commands_prompts.prompts_app, name="prompts")
app.add_typer(commands_people.people_app, name="people")
app.add_typer(commands_audit.audit_app, name="audit")
app.add_typer(commands_imports.app, name="imports")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag
    if wanted:
        typer.echo(f"chatrlhf {importlib.metadata.version('chatrlhf')}")
        raise typer.Exit


@app.callback()
def program(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options before any command."""


@app.command()
def serve(  # noqa: PLR0913 - an argument an option
    *,
    model: Model = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, 0 for any free one (default: 7860).")
    ] = None,
    replies: Annotated[
        int | None, typer.Option(help="Replies to each turn, 1 to 8 (default: 4).")
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(help="Weights in memory: auto, nf4, int8, bf16 or fp32 (default: auto)."),
    ] = None,
    no_trainer: Annotated[
        bool, typer.Option("--no-trainer", help="Only chat and collect rankings; train nothing.")
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser once it is there.")
    ] = False,
    window: Annotated[
        bool,
        typer.Option("--window", help="Open the page in a window of its own (Chrome, Edge ...)."),
    ] = False,
    data: Data = None,
) -> None:
    """Serve the chat, the API and the trainer (the default command)."""
    settings = settings_of(
        data,
        model={"name": model, "quantization": quantize},
        serve={"host": host, "port": port},
        chat={"replies": replies},
    )
    from ui.server import run

    with_trainer = not no_trainer
    raise typer.Exit(
        run(settings, with_trainer=with_trainer, open_browser=open_browser, window=window)
    )


app.command()(commands_train.train)
app.command()(commands_simulate.simulate)
app.command()(commands_exchange.export)
app.command("import")(commands_exchange.import_files)
app.command()(commands_backup.backup)
app.command()(commands_backup.restore)
app.command()(commands_backup.check)
app.command()(commands_backup.doctor)
app.command()(commands_api.api)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code.

    0 is success, 1 a round that failed, 2 an error that was explained, 130 Ctrl-C.
    """
    # Before torch is loaded. A thread that spins at a barrier keeps the core from the thread it
    # waits for: with chat and trainer on two cores a matrix product took 30 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0].split("=")[0] not in _OWN_OPTIONS):
        given.insert(0, "serve")
    try:
        app(given, prog_name="chatrlhf")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except ChatRLHFError as error:
        typer.echo(f"chatrlhf: {' '.join(str(error).split())}", err=True)
        return _ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0
