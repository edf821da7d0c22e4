"""Does it learn? PPO on a known score, PPO through rankings, reward models on human pairs.

``make bench-learning`` (or ``python benchmarks/learning.py --parts direct --seeds 0``), on the
embedded model with the starter adapter:

    direct    PPO on a scripted score (VADER sentiment of the reply)
    learned   simulated rankings by that score, a reward model fitted to them, PPO against it
    human     reward models fitted to human pairs (--pairs FILE_OR_FOLDER, forms in
              chatrlhf/loop/exchange/pairs.py), beside TRL's RewardTrainer

Nothing is averaged away: every seed is a line. With ``--json FILE`` results are written as they
come, and a run that was stopped goes on; with ``--images FOLDER`` the curves are drawn.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PARTS = ("direct", "learned", "human")
METHODS = ("head", "head-starter", "adapter", "trl")


def main() -> None:
    arguments = parser().parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from learning_run import run  # torch reads the variable when it is loaded

    run(arguments)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    found.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    found.add_argument("--json", type=Path, help="keep results here, and go on from them")
    found.add_argument("--images", type=Path, help="draw the curves into this folder")
    found.add_argument("--model", default="embedded", help="as for 'chatrlhf serve --model'")
    found.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves them")
    found.add_argument("--estimate", action="store_true", help="say how long it takes, and stop")
    ppo = found.add_argument_group("direct and learned")
    ppo.add_argument("--rater", default="positive", help="whose score; see 'chatrlhf simulate'")
    ppo.add_argument("--iterations", type=int, default=12)
    ppo.add_argument("--batch", type=int, default=48, help="replies an iteration")
    ppo.add_argument("--max-new-tokens", type=int, default=32)
    ppo.add_argument("--learning-rate", type=float, default=3e-4)
    ppo.add_argument("--kl-coefficient", type=float, default=0.05)
    ppo.add_argument("--held-out-replies", type=int, default=4, help="to each held-out prompt")
    ppo.add_argument("--rankings", type=int, default=192, help="learned: prompts that are ranked")
    ppo.add_argument("--replies", type=int, default=4, help="learned: replies to each of them")
    human = found.add_argument_group("human")
    human.add_argument("--pairs", type=Path, help="JSON Lines or Parquet with chosen and rejected")
    human.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    human.add_argument("--sizes", nargs="*", type=int, default=[50, 100, 200, 400])
    human.add_argument("--adapter-sizes", nargs="*", type=int, default=[200])
    human.add_argument("--adapter-seeds", nargs="+", type=int, default=[0])
    human.add_argument("--epochs", type=int, help="of adapter and trl; default: the trainer's")
    human.add_argument("--most-pairs", type=int, help="use only the first so many pairs")
    return found


if __name__ == "__main__":
    main()
