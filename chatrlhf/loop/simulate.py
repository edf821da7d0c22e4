"""A simulated rater: chats, ranks, waits for rounds and measures, through the HTTP API only.

It needs no model and no database, so it sees exactly what a person sees. The measurement uses
held-out prompts, the same seeds for every version, and the rater's true score, which no trainer
ever saw.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chatrlhf.errors import BadInputError
from chatrlhf.loop.raters import Rater, word_count
from chatrlhf.loop.simulate_client import ApiClient, Json, RequestFailedError
from chatrlhf.loop.simulate_report import BASELINE, PromptResult, comparison_table, summarise
from chatrlhf.loop.simulate_rounds import RoundWatcher, trainer_text

Rounds = Literal["none", "automatic", "final"]

_FAILURES_IN_A_ROW = 5


@dataclass(frozen=True)
class Plan:
    """What a simulated rater does.

    ``rounds``: ``none`` waits for no round, ``automatic`` for those that start by themselves,
    ``final`` asks besides for a last round over rankings that no round has seen.
    ``max_wait`` is the longest wait for one round, in seconds.
    """

    rater: Rater
    rankings: int
    seed: int = 0
    replies: int | None = None
    rounds: Rounds = "final"
    eval_prompts: int = 24
    eval_replies: int = 2
    max_wait: float = 3600.0


def simulate(plan: Plan, client: ApiClient, console: Console) -> Json:
    """Carry out the plan; returns the report that ``--json`` writes.

    Raises:
        BadInputError: the server has no prompts to ask.
        RequestFailedError: the server is not there, or refuses several requests in a row.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        return Simulation(plan, client, progress).run()


class Simulation:
    """One run of a plan."""

    def __init__(self, plan: Plan, client: ApiClient, progress: Progress) -> None:
        self._plan = plan
        self._client = client
        self._progress = progress
        self._generator = random.Random(plan.seed)
        # Keys must differ between two runs with one seed: their turns do.
        self._token = uuid.uuid4().hex
        self._results: dict[str, list[PromptResult]] = {}
        self._last_ranking_id = 0
        self._ranked = 0
        self._waited_to_the_end = True

    def run(self) -> Json:
        """Rank, wait, measure, report."""
        started_at = _now()
        health = self._client.wait_until_ready(self._tell)
        self._live = str(health["live_version"] or BASELINE)
        train = self._prompts("train") if self._plan.rankings else []
        self._held_out = self._prompts("held_out")[: self._plan.eval_prompts]
        self._watcher = RoundWatcher(self._client, self._tell)
        self._rank_all(train)
        self._wait_for_rounds()
        self._measure(BASELINE)
        self._measure(self._live_version())
        rows = self._tell_comparison()
        self._tell_failures()
        return {
            "rater": self._plan.rater.name,
            "seed": self._plan.seed,
            "model": health["model"],
            "started_at": started_at,
            "ended_at": _now(),
            "rankings": self._ranked,
            "live_version": self._live,
            "rounds": self._watcher.outcomes,
            "waited_to_the_end": self._waited_to_the_end,
            "versions": rows,
            "retries": self._client.retries,
            "failures": self._client.failures,
        }

    # --- ranking --------------------------------------------------------------------------

    def _rank_all(self, prompts: Sequence[Json]) -> None:
        wanted = self._plan.rankings
        task = self._progress.add_task("ranking", total=wanted)
        in_a_row = 0
        for number in range(wanted):
            prompt = prompts[number % len(prompts)]
            try:
                order = self._rank_one(prompt, number)
                in_a_row = 0
            except RequestFailedError as error:
                in_a_row += 1
                order = "failed"
                self._tell(str(error))
                if in_a_row >= _FAILURES_IN_A_ROW:
                    raise
            self._progress.update(task, advance=1, description=f"ranking: {order}")
            if self._watcher.look():
                self._measure_if_changed()

    def _rank_one(self, prompt: Json, number: int) -> str:
        """One conversation with one ranked turn; returns the order as the server stored it."""
        start = {"system_prompt": prompt["system_prompt"]} if prompt.get("system_prompt") else {}
        conversation = self._client.post("/api/conversations", start)["id"]
        ask: Json = {"text": prompt["text"], "seed": self._generator.randrange(2**31)}
        if self._plan.replies is not None:
            ask["replies"] = self._plan.replies
        turn = self._client.post(f"/api/conversations/{conversation}/turns", ask)
        # An interrupted reply cannot be ranked.
        replies = [reply for reply in turn["replies"] if reply["state"] != "interrupted"]
        ranks = self._plan.rater.rank([reply["text"] for reply in replies], self._generator)
        answer = self._client.post(
            f"/api/turns/{turn['turn_id']}/ranking",
            {
                "ranks": {
                    str(reply["id"]): rank for reply, rank in zip(replies, ranks, strict=True)
                },
                "idempotency_key": f"simulate-{self._token}-{number}",
            },
        )
        self._ranked += 1
        self._last_ranking_id = int(answer["ranking_id"])
        return str(answer["order"])

    def _wait_for_rounds(self) -> None:
        plan = self._plan
        if plan.rounds == "none":
            return
        task = self._progress.add_task("waiting for the trainer", total=None)

        def show(trainer: Json) -> None:
            step, steps = trainer.get("step") or 0, trainer.get("steps") or None
            text = trainer_text(trainer)
            self._progress.update(task, description=text, completed=step, total=steps)

        done = self._watcher.wait(plan.max_wait, show)
        if done and plan.rounds == "final" and self._has_unseen_rankings():
            self._measure_if_changed()
            # Measuring takes minutes: a round may have begun by itself.
            done = self._watcher.wait(plan.max_wait, show)
            if done and self._has_unseen_rankings():
                self._tell("Asking for a last round over all rankings.")
                done = self._watcher.request(plan.max_wait, show)
        self._waited_to_the_end = done
        self._progress.remove_task(task)

    def _has_unseen_rankings(self) -> bool:
        return self._last_ranking_id > self._watcher.newest_ranking_seen

    # --- measuring ------------------------------------------------------------------------

    def _live_version(self) -> str:
        self._live = str(self._client.get("/api/health")["live_version"] or BASELINE)
        return self._live

    def _measure_if_changed(self) -> None:
        before = self._live
        if self._live_version() != before:
            self._tell(f"{self._live} is live now (before: {before}).")
            self._measure(BASELINE)
            self._measure(self._live)
            self._tell_comparison()

    def _tell_comparison(self) -> list[Json]:
        rows = summarise(self._results, self._plan.seed)
        if rows:
            self._progress.console.print(comparison_table(rows, self._plan.rater.name))
        return rows

    def _measure(self, version: str) -> None:
        if version in self._results or not self._held_out:
            return
        results: list[PromptResult] = []
        task = self._progress.add_task(f"measuring {version}", total=len(self._held_out))
        for number, prompt in enumerate(self._held_out):
            try:
                results.append(self._ask(version, prompt, self._plan.seed + number))
            except RequestFailedError as error:
                self._tell(str(error))
            self._progress.update(task, advance=1)
        self._progress.remove_task(task)
        self._results[version] = results

    def _ask(self, version: str, prompt: Json, seed: int) -> PromptResult:
        messages = [{"role": "user", "content": prompt["text"]}]
        if prompt.get("system_prompt"):
            messages.insert(0, {"role": "system", "content": prompt["system_prompt"]})
        answer = self._client.post(
            "/v1/chat/completions",
            {"model": version, "messages": messages, "n": self._plan.eval_replies, "seed": seed},
        )
        texts = [str(choice["message"]["content"]) for choice in answer["choices"]]
        return PromptResult(
            prompt_id=int(prompt["id"]),
            scores=tuple(self._plan.rater.score(text) for text in texts),
            words=tuple(word_count(text) for text in texts),
            stopped=tuple(choice["finish_reason"] == "stop" for choice in answer["choices"]),
        )

    # --- small things ---------------------------------------------------------------------

    def _prompts(self, split: str) -> list[Json]:
        """The pool's prompts of one split, in an order that the seed decides."""
        found = [item for item in self._client.get("/api/prompts") if item["split"] == split]
        if not found:
            raise BadInputError(
                f"The server has no {split} prompts. Add some: chatrlhf prompts import FILE"
            )
        found.sort(key=lambda item: int(item["id"]))
        random.Random(f"{self._plan.seed}-{split}").shuffle(found)
        return found

    def _tell(self, text: str) -> None:
        self._progress.console.print(escape(text), highlight=False)

    def _tell_failures(self) -> None:
        if self._client.retries:
            self._tell(f"{self._client.retries} requests were repeated while the server was busy.")
        for failure in self._client.failures:
            self._tell("failed: {method} {path} ({status}): {message}".format(**failure))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
