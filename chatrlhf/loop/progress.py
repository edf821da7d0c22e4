"""What a round tells the world while it runs: heartbeats, numbers, samples, sentences."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chatrlhf.errors import RoundError
from chatrlhf.loop.sentences import Sentence, joined
from storage import run_log, runs
from storage.database import Database
from storage.records import Metric, Run, Sample

HEARTBEAT_SECONDS = 1.0


class LeaseLostError(RoundError):
    """Another worker holds the round, or a person cancelled it; stop without writing."""

    code = "lease_lost"


class ScoredText(NamedTuple):
    """A reply, its score, and what each term of the reward adds to it."""

    prompt: str
    reply: str
    score: float
    terms: dict[str, float]


class RunProgress:
    """Writes the progress of one claimed run; every write proves that the lease still holds."""

    def __init__(self, db: Database, run: Run) -> None:
        self.db = db
        self.run = run
        self._stage = ""
        self._stage_started = 0.0
        self._last_beat = 0.0
        self._first_step = 0

    def stage(self, name: str, steps: int, first_step: int = 0) -> None:
        """Begin a stage. ``first_step`` is where a resumed stage goes on."""
        self._stage = name
        self._stage_started = time.monotonic()
        self._first_step = first_step
        self._beat(first_step, steps, None, name)

    def step(self, step: int, steps: int, message: str) -> None:
        """Report a finished step; written at most once a second, and always the last.

        Raises:
            LeaseLostError: the run belongs to somebody else now.
        """
        now = time.monotonic()
        if step < steps and now - self._last_beat < HEARTBEAT_SECONDS:
            return
        done = step - self._first_step
        eta = (now - self._stage_started) / done * (steps - step) if done > 0 else None
        self._beat(step, steps, eta, message)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Store numbers of the current stage."""
        stage = self._stage
        rows = [Metric(stage, step, f"{stage}/{name}", value) for name, value in values.items()]
        run_log.add_metrics(self.db, self.run.id, self.run.fence, rows)

    def samples(self, step: int, rows: Sequence[ScoredText]) -> None:
        """Store replies of the policy in training."""
        samples = [
            Sample(self._stage, step, row.prompt, row.reply, row.score, terms=row.terms)
            for row in rows
        ]
        run_log.add_samples(self.db, self.run.id, self.run.fence, samples)

    def event(self, kind: str, *sentences: Sentence) -> None:
        """Add to the timeline; ``kind``: info, gate_passed, gate_failed, error."""
        data = {"sentences": [sentence.as_json() for sentence in sentences]}
        run_log.add_event(self.db, self.run.id, kind, joined(sentences), data)

    def _beat(self, step: int, steps: int, eta: float | None, message: str) -> None:
        self._last_beat = time.monotonic()
        held = runs.heartbeat(
            self.db,
            self.run.id,
            self.run.fence,
            stage=self._stage,
            step=step,
            steps=steps,
            eta_seconds=eta,
            message=message,
        )
        if not held:
            raise LeaseLostError(f"Round {self.run.id} was cancelled or taken over.")
