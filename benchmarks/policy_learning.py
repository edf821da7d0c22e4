"""PPO against a score that is known exactly, directly and through simulated rankings.

``learn_directly`` rewards each reply with the rater's true score. ``learn_from_rankings`` lets the
rater rank sampled replies, fits the reward model to those rankings, and lets PPO see that model
only; the true score is measured beside it, so that over-optimisation shows. Both do what a round
of the trainer does, without rows and gates.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from ranking_model import blank_critic_head, fit_rankings
from torch import Tensor
from workbench import POLICY, REWARD, START, VALUE, Workbench

from chatrlhf.loop.datasets import draw_prompts
from chatrlhf.loop.intervals import bootstrap_interval
from chatrlhf.loop.raters import Rater
from chatrlhf.models.reward_model import ScalarHead, ValueModel
from chatrlhf.settings import PpoSettings
from chatrlhf.training.distance import mean_sequence_kl
from chatrlhf.training.ppo import PpoTrainer, Scorer
from chatrlhf.training.reward_data import RankingExample
from chatrlhf.training.rollout import Rollout

REFERENCE_SAMPLES = 64
# Continuations of fixed length: short, so that many fit into minutes; scored though they are cut.
CONTINUATIONS = PpoSettings(
    learning_rate=3e-4,
    value_learning_rate=3e-4,
    iterations=12,
    batch_size=48,
    minibatches=3,
    epochs=2,
    max_new_tokens=32,
    score_unfinished=True,
)

Json = dict[str, Any]
OnIteration = Callable[[int, Json], None]


@dataclass(frozen=True)
class Plan:
    """What is learned, and how much of it.

    ``rankings`` prompts get ``replies`` replies each; ``held_out_replies`` replies to each
    held-out prompt are judged before and after.
    """

    rater: Rater
    ppo: PpoSettings = CONTINUATIONS
    rankings: int = 192
    replies: int = 4
    held_out_replies: int = 4

    def settings(self, part: str) -> Json:
        """What a stored result must have been made with to count for this plan."""
        found: Json = {
            "rater": self.rater.name,
            "held_out_replies": self.held_out_replies,
            "ppo": asdict(self.ppo),
        }
        if part == "learned":
            found |= {"rankings": self.rankings, "replies": self.replies}
        return found


def learn_directly(
    bench: Workbench, plan: Plan, seed: int, on_iteration: OnIteration | None = None
) -> Json:
    """PPO on the rater's true score, shifted and scaled as a reward model's is."""
    started = time.perf_counter()
    reference = reference_replies(bench, plan, seed)
    scale = true_scale(bench, plan, reference)
    mean, deviation = scale.values()

    def scorer(rollout: Rollout) -> Tensor:
        return (torch.tensor(true_scores(bench, plan, rollout)) - mean) / deviation

    head = blank_critic_head(bench, reference)
    found = _optimise_and_measure(bench, plan, seed, scorer, head, on_iteration)
    return {**found, **scale, "seconds": time.perf_counter() - started}


def learn_from_rankings(
    bench: Workbench, plan: Plan, seed: int, on_iteration: OnIteration | None = None
) -> Json:
    """Rankings by the rater, a reward model fitted to them, PPO against that model."""
    started = time.perf_counter()
    reference = reference_replies(bench, plan, seed)
    examples = simulated_rankings(bench, plan, seed)
    reward = fit_rankings(bench, examples, reference, seed)
    found = _optimise_and_measure(
        bench, plan, seed, reward.scorer, reward.critic_head, on_iteration
    )
    scale = true_scale(bench, plan, reference)
    return {
        **found,
        **scale,
        "reward_model": reward.evaluation,
        "seconds": time.perf_counter() - started,
    }


def reference_replies(bench: Workbench, plan: Plan, seed: int) -> Rollout:
    """Replies of the start policy, on which scores are normalised."""
    prompts = draw_prompts(bench.train, REFERENCE_SAMPLES, f"{seed}/reference")
    return bench.sample(START, prompts, plan.ppo, _seed(seed, "reference"))


def simulated_rankings(bench: Workbench, plan: Plan, seed: int) -> list[RankingExample]:
    """K replies of the start policy to each of N prompts, ranked; all-tied ones are left out."""
    prompts = draw_prompts(bench.train, plan.rankings, f"{seed}/rankings")
    repeated = [prompt for prompt in prompts for _ in range(plan.replies)]
    rollout = bench.sample(START, repeated, plan.ppo, _seed(seed, "rankings"))
    texts = bench.texts(rollout)
    generator = random.Random(f"{seed}/rater")
    found = []
    for at in range(0, len(repeated), plan.replies):
        place = slice(at, at + plan.replies)
        ranks = plan.rater.rank(texts[place], generator)
        if len(set(ranks)) == 1:
            continue
        found.append(
            RankingExample(
                sequences=tuple(rollout.sequences[place]),
                ranks=tuple(ranks),
                reply_lengths=tuple(len(one) for one in rollout.responses[place]),
                prompt_key=str(repeated[at]),
            )
        )
    return found


def true_scores(bench: Workbench, plan: Plan, rollout: Rollout) -> list[float]:
    """The rater's true score of each reply."""
    return [plan.rater.score(text) for text in bench.texts(rollout)]


def true_scale(bench: Workbench, plan: Plan, reference: Rollout) -> dict[str, float]:
    """Mean and deviation of the true score over the start policy's replies."""
    scores = torch.tensor(true_scores(bench, plan, reference))
    return {
        "true_score_mean": float(scores.mean()),
        "true_score_deviation": max(float(scores.std()), 1e-4),
    }


def new_trainer(
    bench: Workbench, settings: PpoSettings, seed: int, scorer: Scorer, head: ScalarHead
) -> PpoTrainer:
    """PPO from the start adapter, with the critic a copy of the reward adapter and its head."""
    bench.bank.copy(START, POLICY)
    bench.bank.copy(REWARD, VALUE)
    value_head = ScalarHead(bench.base.hidden_size)
    value_head.load(head.state())
    return PpoTrainer(
        bench.policy(POLICY, START),
        ValueModel(bench.base, bench.bank, VALUE, value_head, whole=settings.whole_critic),
        scorer,
        settings,
        seed=seed,
        micro_batch=bench.micro_batch,
    )


def _optimise_and_measure(
    bench: Workbench,
    plan: Plan,
    seed: int,
    scorer: Scorer,
    head: ScalarHead,
    on_iteration: OnIteration | None,
) -> Json:
    """PPO from the start adapter; true and given score on held-out prompts before and after."""
    held_out = [prompt for prompt in bench.held_out for _ in range(plan.held_out_replies)]
    replies, measured = {}, {}
    curve: list[Json] = []
    for when, adapter in (("before", START), ("after", POLICY)):
        if when == "after":
            curve = _optimise(bench, plan, seed, scorer, head, on_iteration)
        rollout = bench.sample(adapter, held_out, plan.ppo, _seed(seed, "evaluation"))
        replies[when] = rollout
        measured[when] = torch.tensor(true_scores(bench, plan, rollout), dtype=torch.float64)
    # Prompts are the units of the bootstrap: replies to one prompt are not independent.
    change = (measured["after"] - measured["before"]).view(len(bench.held_out), -1).mean(1)
    found: Json = {"seed": seed, "held_out_prompts": len(bench.held_out)}
    for when, rollout in replies.items():
        found[f"true_score_{when}"] = float(measured[when].mean())
        found[f"given_score_{when}"] = float(scorer(rollout).mean())
        found[f"reply_tokens_{when}"] = sum(map(len, rollout.responses)) / len(rollout)
        found[f"finished_{when}"] = sum(rollout.finished) / len(rollout)
    return {
        **found,
        "difference": bootstrap_interval(change.numpy(), seed=seed)._asdict(),
        "kl": mean_sequence_kl(
            bench.policy(POLICY, START),
            replies["after"],
            plan.ppo.temperature,
            bench.micro_batch,
        ),
        "curve": curve,
    }


def _optimise(
    bench: Workbench,
    plan: Plan,
    seed: int,
    scorer: Scorer,
    head: ScalarHead,
    on_iteration: OnIteration | None,
) -> list[Json]:
    trainer = new_trainer(bench, plan.ppo, seed, scorer, head)
    curve: list[Json] = []
    for iteration in range(1, plan.ppo.iterations + 1):
        prompts = draw_prompts(bench.train, plan.ppo.batch_size, f"{seed}/ppo/{iteration}")
        stats, rollout, _ = trainer.iteration(prompts)
        true = true_scores(bench, plan, rollout)
        row = {"iteration": iteration, "true_score": sum(true) / len(true), **stats.as_dict()}
        curve.append(row)
        if on_iteration:
            on_iteration(iteration, row)
    return curve


def _seed(seed: int, purpose: str) -> int:
    """Sampling seeds of different purposes must not meet; PPO's own are millions apart."""
    return 1_000 + 10 * seed + ("evaluation", "rankings", "reference").index(purpose)
