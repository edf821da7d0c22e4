"""Does the server stay as it is under minutes of mixed load? Memory over time, and every error.

``make bench-soak`` starts a server of its own and asks it in cycles: clients that read whole
answers or streams, that go away in the middle, that send too long or impossible requests; meanwhile
other versions are promoted, more of them than the engine holds; then thousands of requests at once,
of which most have to wait or be shed. After each cycle, when all is quiet, memory is read and some
replies are compared with those of the same seeds before the load.

Departures from a usual soak: memory is compared at rest, so a peak is no growth; and every request
must end in an answer, a clear refusal, or the client's own hanging up: nothing may be lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import psutil
from own_server import own_process
from random_versions import publish_random_versions
from rich.console import Console
from rich.table import Table
from soak_load import Load

SWAP_SECONDS = 0.7
QUIET_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """How long and how hard; on a busy machine the cycles may take longer than the seconds."""

    seconds: float
    cycle_seconds: float
    clients: int
    flood: int
    versions: int
    least_cycles: int = 3
    seed: int = 0


@dataclass
class Rest:
    """The server after a cycle, when nothing goes on."""

    seconds: float
    requests: int
    memory_bytes: int
    threads: int
    open_files: int
    cache_bytes: int


@dataclass
class Soak:
    """What was seen."""

    rests: list[Rest] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    started: int = 0
    ended: int = 0
    swaps: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def growth_bytes(self) -> float:
        """Memory at rest of the last third of the cycles over that of the middle third, medians.

        The first third fills caches, pools of threads and the allocator.
        """
        third = max(len(self.rests) // 3, 1)
        middle, last = self.rests[third : 2 * third], self.rests[-third:]
        return _median(last) - _median(middle)


def _median(rests: list[Rest]) -> float:
    return statistics.median(rest.memory_bytes for rest in rests)


def run(model: str, plan: Plan, on_rest: Callable[[Rest], None] = lambda _: None) -> Soak:
    """Serve a model with random versions and ask it for as long as the plan says."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        names = ["v0", *publish_random_versions(data, model, plan.versions)]
        settings = {
            "CHATRLHF_MODEL_NAME": model,
            "CHATRLHF_ROUND_AUTOMATIC": "false",
            "CHATRLHF_ENGINE_RESIDENT_VERSIONS": "3",
        }
        with own_process(data, settings) as (url, pid):
            return asyncio.run(_soak(url, psutil.Process(pid), names, plan, on_rest))


async def _soak(
    url: str,
    process: psutil.Process,
    names: list[str],
    plan: Plan,
    on_rest: Callable[[Rest], None],
) -> Soak:
    soak = Soak()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    async with httpx.AsyncClient(base_url=url, limits=limits) as client:
        # Two versions are asked for by name and one is live, so the promoted ones find a slot.
        load = Load(client, names[:2], plan.seed)
        await load.learn()
        began = time.monotonic()
        while time.monotonic() - began < plan.seconds or len(soak.rests) < plan.least_cycles:
            await _cycle(client, load, names, plan, soak)
            await _until_quiet(client)
            rest = await _at_rest(client, process, time.monotonic() - began, load.tally.started)
            soak.rests.append(rest)
            on_rest(rest)
    tally = load.tally
    soak.outcomes, soak.lost, soak.wrong = dict(tally.outcomes), tally.lost, tally.wrong
    soak.started, soak.ended = tally.started, tally.ended
    return soak


async def _cycle(
    client: httpx.AsyncClient, load: Load, names: list[str], plan: Plan, soak: Soak
) -> None:
    ends = time.monotonic() + plan.cycle_seconds
    swapper = asyncio.create_task(_swap(client, names, soak))
    try:
        await asyncio.gather(
            *(load.work(lambda: time.monotonic() > ends) for _ in range(plan.clients))
        )
        await load.flood(plan.flood)
    finally:
        swapper.cancel()
        with suppress(asyncio.CancelledError):
            await swapper


async def _swap(client: httpx.AsyncClient, names: list[str], soak: Soak) -> None:
    """Promote one version after the other; a full engine may refuse, and says so."""
    while True:
        name = names[soak.swaps % len(names)]
        answer = await client.post(f"/api/versions/{name}/promote", timeout=QUIET_SECONDS)
        if answer.status_code == 200:
            soak.swaps += 1
        elif answer.status_code != 503:
            soak.wrong.append(f"promote {name}: {answer.text}")
        await asyncio.sleep(SWAP_SECONDS)


async def _until_quiet(client: httpx.AsyncClient) -> None:
    """Wait until nothing runs or waits; what was cut must not stay."""
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        engine = (await client.get("/api/health", timeout=QUIET_SECONDS)).json()["engine"]
        if not engine["active"] and not engine["queued"]:
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"the engine still works {QUIET_SECONDS:.0f} s after the last request")


async def _at_rest(
    client: httpx.AsyncClient, process: psutil.Process, seconds: float, requests: int
) -> Rest:
    engine = (await client.get("/api/health", timeout=QUIET_SECONDS)).json()["engine"]
    return Rest(
        seconds=round(seconds, 1),
        requests=requests,
        memory_bytes=process.memory_info().rss,
        threads=process.num_threads(),
        open_files=process.num_fds(),
        cache_bytes=engine["cache_bytes"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default="embedded", help="a preset, hub id or folder")
    parser.add_argument("--cycle-seconds", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--flood", type=int, default=2000, help="requests at once in each cycle")
    parser.add_argument("--versions", type=int, default=4, help="beside v0; the engine holds 3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what was seen to this file")
    given = parser.parse_args()
    plan = Plan(
        seconds=60.0 * given.minutes,
        cycle_seconds=given.cycle_seconds,
        clients=given.clients,
        flood=given.flood,
        versions=given.versions,
        seed=given.seed,
    )
    console = Console()
    soak = run(given.model, plan, on_rest=lambda rest: console.print(_line(rest)))
    table = Table(title=f"{soak.started} requests, {soak.swaps} versions promoted")
    table.add_column("outcome")
    table.add_column("requests", justify="right")
    for outcome, count in sorted(soak.outcomes.items()):
        table.add_row(outcome, str(count))
    table.add_row("lost", str(len(soak.lost)))
    table.add_row("wrong", str(len(soak.wrong)))
    console.print(table)
    for error in [*soak.lost[:20], *soak.wrong[:20]]:
        console.print(error, style="red", markup=False)
    console.print(f"memory at rest grew by {soak.growth_bytes / 2**20:.1f} MiB")
    if given.json:
        seen = {**asdict(soak), "growth_bytes": soak.growth_bytes}
        given.json.write_text(json.dumps(seen, indent=2) + "\n")


def _line(rest: Rest) -> str:
    return (
        f"{rest.seconds:6.0f} s  {rest.requests:7d} requests  "
        f"{rest.memory_bytes / 2**20:7.1f} MiB  {rest.threads} threads  {rest.open_files} files"
    )


if __name__ == "__main__":
    main()
