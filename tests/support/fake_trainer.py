"""A trainer process for tests of the supervisor: claims a run for real, then does as told.

Usage: fake_trainer.py DATA RUN_ID. ``DATA/behaviours`` has one word a line, one for each attempt.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage import runs
from storage.database import open_database


def main() -> int:
    folder, run_id = Path(sys.argv[1]), int(sys.argv[2])
    counter = folder / "attempts"
    attempt = len(counter.read_text().split()) if counter.exists() else 0
    with counter.open("a") as file:
        file.write(f"{os.getpid()}\n")
    behaviour = (folder / "behaviours").read_text().split()[attempt]
    if behaviour == "die-early":
        sys.stderr.write("Traceback: no module named torch\n")
        return 1
    if behaviour == "nothing":
        return 3
    db = open_database(folder / "chatrlhf.db")
    run = runs.claim_run(db, "fake", os.getpid(), "boot")
    assert run is not None
    assert run.id == run_id
    beat = {"stage": "reward", "steps": 4, "eta_seconds": 2.0, "message": "fitting"}
    assert runs.heartbeat(db, run_id, run.fence, step=1, **beat)
    sys.stdout.write(f"attempt {attempt} works\n")
    sys.stdout.flush()
    if behaviour == "die-9":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if behaviour == "beat":
        while runs.heartbeat(db, run_id, run.fence, step=2, **beat):
            time.sleep(0.05)
        return 1
    state = {"succeed": "succeeded", "fail": "failed"}[behaviour]
    runs.finish_run(db, run_id, run.fence, state, f"It {state}.")
    return 0 if behaviour == "succeed" else 1


if __name__ == "__main__":
    sys.exit(main())
