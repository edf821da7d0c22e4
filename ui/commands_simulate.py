"""``chatrlhf simulate``: a simulated rater over the HTTP API."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ui.terminal import console, say


class Rounds(StrEnum):
    """What ``--rounds`` takes."""

    none = "none"
    automatic = "automatic"
    final = "final"


def simulate(  # noqa: PLR0913 - each argument is an option of the command
    *,
    rater: Annotated[
        str,
        typer.Option(
            help="shorter, positive, question, or noisy:NAME:RATE such as noisy:shorter:0.1."
        ),
    ] = "shorter",
    rankings: Annotated[int, typer.Option(min=0, help="How many turns to rank.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Decides prompts, sampling and errors.")] = 0,
    url: Annotated[
        str, typer.Option(help="Address of a running server.")
    ] = "http://127.0.0.1:7860",
    replies: Annotated[
        int | None, typer.Option(min=2, max=8, help="Replies to each turn (default: the server's).")
    ] = None,
    rounds: Annotated[
        Rounds,
        typer.Option(
            help="none: wait for no round; automatic: for those that start by themselves; "
            "final: besides, ask for a last one over rankings that no round has seen."
        ),
    ] = Rounds.final,
    eval_prompts: Annotated[
        int, typer.Option(min=0, help="Held-out prompts to compare versions on.")
    ] = 24,
    eval_replies: Annotated[
        int, typer.Option(min=1, max=8, help="Replies of each version to each of them.")
    ] = 2,
    max_wait: Annotated[
        float, typer.Option(min=1, help="Longest wait for the model or for a round, in seconds.")
    ] = 3600.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report to this file as JSON.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="CHATRLHF_API_KEY", help="API key of a server that wants a login."),
    ] = None,
) -> None:
    """Rank replies as a simulated person, and measure whether the model learned its taste."""
    from chatrlhf.loop.raters import find_rater
    from chatrlhf.loop.simulate import Plan
    from chatrlhf.loop.simulate import simulate as carry_out
    from chatrlhf.loop.simulate_client import ApiClient, http_client

    plan = Plan(
        rater=find_rater(rater),
        rankings=rankings,
        seed=seed,
        replies=replies,
        rounds=rounds.value,
        eval_prompts=eval_prompts,
        eval_replies=eval_replies,
        max_wait=max_wait,
    )
    with http_client(url, api_key) as http:
        report = carry_out(plan, ApiClient(http, max_wait=max_wait), console)
    if json_file is not None:
        _write(json_file, report)
    failed = bool(report["failures"]) or not report["waited_to_the_end"]
    raise typer.Exit(1 if failed else 0)


def _write(path: Path, report: dict[str, Any]) -> None:
    from chatrlhf.errors import BadInputError

    try:
        path.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error}") from error
    say(f"Report written to {path}.")
