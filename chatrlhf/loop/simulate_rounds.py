"""What a simulated rater sees of the trainer: rounds that start and end, over HTTP only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chatrlhf.loop.simulate_client import ApiClient, Json, RequestFailedError

Tell = Callable[[str], None]

_UNDER_WAY = ("queued", "running")
# The supervisor looks a few times a second; a round that is due starts well within this.
_START_SECONDS = 10.0


class RoundWatcher:
    """Notices rounds that start and end; ``outcomes`` collects those that ended."""

    def __init__(self, client: ApiClient, tell: Tell) -> None:
        self._client = client
        self._tell = tell
        self._under_way: set[int] = set()
        self._known = {int(run["id"]) for run in self._rounds() if not _is_under_way(run)}
        self.outcomes: list[Json] = []
        self.newest_ranking_seen = 0

    def look(self) -> bool:
        """Look once; True when a round ended since the last look."""
        ended = False
        for run in sorted(self._rounds(), key=lambda run: int(run["id"])):
            number = int(run["id"])
            if number in self._known:
                continue
            if number not in self._under_way:
                self._under_way.add(number)
                self._tell(f"Round {number} started ({', '.join(run['stages'])}).")
            if not _is_under_way(run):
                self._known.add(number)
                self._note_outcome(run)
                ended = True
        return ended

    def wait(self, max_wait: float, progress: Callable[[Json], None]) -> bool:
        """Wait until no round is queued, running or due.

        ``progress`` gets the trainer's status about once a second. Returns False when the wait
        ended early: the trainer is paused, or ``max_wait`` seconds have passed.
        """
        waited = idle = 0.0
        while True:
            trainer = dict(self._client.get("/api/health").get("trainer") or {})
            progress(trainer)
            self.look()
            state = trainer.get("state")
            if state == "paused":
                self._tell("The trainer is paused: not waiting for its rounds.")
                return False
            idle = 0.0 if state in _UNDER_WAY else idle
            due = trainer.get("next_refit_in") == 0 and idle < _START_SECONDS
            if state not in _UNDER_WAY and not due:
                return True
            if waited >= max_wait:
                self._tell(f"A round still runs after {max_wait:.0f} s: not waiting any longer.")
                return False
            self._client.sleep(1.0)
            waited += 1.0
            idle += 1.0

    def request(self, max_wait: float, progress: Callable[[Json], None]) -> bool:
        """Ask for one round over everything and wait for its end, as ``wait`` does."""
        try:
            self._client.post("/api/rounds")
        except RequestFailedError as error:
            self._tell(f"No final round: {error}")
            return False
        return self.wait(max_wait, progress)

    def _rounds(self) -> list[Json]:
        return list(self._client.get("/api/rounds"))

    def _note_outcome(self, run: Json) -> None:
        number = int(run["id"])
        self.newest_ranking_seen = max(self.newest_ranking_seen, int(run["last_ranking_id"]))
        events = list(self._client.get(f"/api/rounds/{number}/events"))
        outcome = {
            "id": number,
            "state": run["state"],
            "stages": run["stages"],
            "message": run["message"],
            "result_version": run["result_version"],
            "last_ranking_id": run["last_ranking_id"],
            "started_at": run["started_at"],
            "ended_at": run["ended_at"],
            "events": [{"kind": event["kind"], "text": event["text"]} for event in events],
        }
        self.outcomes.append(outcome)
        self._tell(f"Round {number} {run['state']}: {run['message']}")
        for event in outcome["events"]:
            self._tell(f"  {_mark(event['kind'])} {event['text']}")


def trainer_text(trainer: dict[str, Any]) -> str:
    """The trainer's status in a few words, for a progress bar."""
    state = str(trainer.get("state") or "unknown")
    if state != "running":
        return f"round {state}"
    words = f"{trainer.get('stage') or 'starting'} {trainer.get('step') or 0}"
    if trainer.get("steps"):
        words += f"/{trainer['steps']}"
    seconds = trainer.get("eta_seconds")
    if seconds is not None:
        words += f", {int(seconds) // 60}:{int(seconds) % 60:02d} left"
    return words


def _is_under_way(run: Json) -> bool:
    return run["state"] in _UNDER_WAY


def _mark(kind: str) -> str:
    return {"gate_passed": "+", "gate_failed": "-", "error": "!"}.get(kind, " ")
