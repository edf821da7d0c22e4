"""Runs the parts of ``learning.py``: what is left to do, how long it takes, progress, tables."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import human_pairs
import policy_learning
import torch
from learning_results import Results, curve_table, difference_text, human_table, policy_table
from policy_learning import CONTINUATIONS, Json, Plan
from ranking_model import frozen_features
from reward_fitting import LONGER, PairPlan, RewardFitting, trl_is_installed
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from workbench import ROWS_AT_ONCE, START, Workbench, load_workbench

from chatrlhf.errors import ChatRLHFError
from chatrlhf.loop.exchange.pairs import read_pairs
from chatrlhf.loop.raters import find_rater
from chatrlhf.models.reward_model import ScalarHead
from chatrlhf.settings import ModelSettings, RewardSettings

CURVES = ("true_score", "kl", "entropy", "reply_tokens")
_PROBED_PAIRS = 4
# A training step costs a forward pass and a backward pass of about twice its work.
_STEP_COST = 3


def run(arguments: argparse.Namespace) -> None:
    """Do what is not done yet, then print tables and draw the curves."""
    console = Console()
    torch.set_flush_denormal(True)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        _run(arguments, console)
    except ChatRLHFError as error:
        raise SystemExit(str(error)) from error


def _run(arguments: argparse.Namespace, console: Console) -> None:
    if arguments.images is not None:
        _require_matplotlib()
    results = Results(arguments.json)
    plan = policy_plan(arguments)
    parts = [part for part in arguments.parts if part != "human"]
    console.print("Loading the model.")
    bench = load_workbench(ModelSettings(name=arguments.model))
    pairs = pair_plan(arguments, bench, console) if "human" in arguments.parts else None
    todo = [
        (part, seed)
        for part in parts
        for seed in arguments.seeds
        if not results.has({"part": part, "seed": seed}, plan.settings(part))
    ]
    fits = [] if pairs is None else list(fits_to_do(arguments, pairs, results, console))
    estimate(bench, plan, todo, pairs, fits, console)
    if arguments.estimate:
        return
    with _progress(console) as progress:
        for part, seed in todo:
            learn_policy(bench, plan, part, seed, results, progress)
        if pairs is not None and fits:
            fit_pairs(bench, pairs, fits, results, progress)
    for part in arguments.parts:
        report(results, part, arguments.images)


def policy_plan(arguments: argparse.Namespace) -> Plan:
    """The plan of ``direct`` and ``learned`` that the command line asks for."""
    chosen = {
        "iterations": arguments.iterations,
        "batch_size": arguments.batch,
        "max_new_tokens": arguments.max_new_tokens,
        "learning_rate": arguments.learning_rate,
        "kl_coefficient": arguments.kl_coefficient,
    }
    ppo = replace(CONTINUATIONS, **chosen)
    return Plan(
        rater=find_rater(arguments.rater),
        ppo=ppo,
        rankings=arguments.rankings,
        replies=arguments.replies,
        held_out_replies=arguments.held_out_replies,
    )


def pair_plan(arguments: argparse.Namespace, bench: Workbench, console: Console) -> PairPlan | None:
    """The plan of ``human``; None, and a sentence, without ``--pairs``."""
    if arguments.pairs is None:
        console.print("The part human is left out: name human pairs with --pairs.")
        return None
    reward = RewardSettings()
    if arguments.epochs:
        reward = replace(reward, epochs=arguments.epochs)
    rows = read_pairs(arguments.pairs)[: arguments.most_pairs]
    split = human_pairs.split_pairs(rows, bench.base.chat_format, reward.max_tokens)
    console.print(
        f"{len(rows)} rows: {len(split.train)} pairs to fit, {len(split.held_out)} held out, "
        f"{split.too_long} longer than {reward.max_tokens} tokens, {split.unusable} unusable."
    )
    if len(split.train) < 2 or not split.held_out:
        raise SystemExit("That is too few pairs to fit and to measure. Name more.")
    return PairPlan(split, arguments.pairs.name, reward)


def learn_policy(
    bench: Workbench, plan: Plan, part: str, seed: int, results: Results, progress: Progress
) -> None:
    """One seed of ``direct`` or ``learned``."""
    learn = {
        "direct": policy_learning.learn_directly,
        "learned": policy_learning.learn_from_rankings,
    }[part]
    task = progress.add_task(f"{part}, seed {seed}", total=plan.ppo.iterations)

    def on_iteration(iteration: int, row: Json) -> None:
        text = (
            f"{part}, seed {seed}: true score {row['true_score']:+.2f}, KL {row['kl']:.1f}, "
            f"{row['reply_tokens']:.0f} tokens"
        )
        progress.update(task, completed=iteration, description=text)
        if not progress.console.is_terminal:  # which draws no bar
            progress.console.print(f"{iteration}/{plan.ppo.iterations} {text}")

    found = learn(bench, plan, seed, on_iteration)
    results.add({"part": part, "seed": seed}, plan.settings(part), found)
    progress.console.print(
        f"{part}, seed {seed}: true score {found['true_score_before']:.3f} -> "
        f"{found['true_score_after']:.3f}, difference {difference_text(found['difference'])}, "
        f"KL {found['kl']:.1f} nats, {found['seconds']:.0f} s."
    )


def fit_pairs(
    bench: Workbench,
    plan: PairPlan,
    fits: Sequence[tuple[str, int, int]],
    results: Results,
    progress: Progress,
) -> None:
    """Every fit of ``human`` that is not done yet."""
    whole = progress.add_task("human pairs", total=len(fits))
    inner = progress.add_task("", total=1)

    def on_step(step: int, steps: int, text: str) -> None:
        progress.update(inner, completed=step, total=steps, description=f"  {text}")

    fitting = RewardFitting(bench, plan, on_step)
    for done, (method, size, seed) in enumerate(fits, start=1):
        found = fitting.fit(method, size, seed)
        key = {"part": "human", "method": method, "train_pairs": size, "seed": seed}
        results.add(key, plan.settings(method), found)
        progress.update(whole, completed=done)
        progress.console.print(
            f"human, {method}, {size} pairs, seed {seed}: {found['right']} of "
            f"{found['held_out_pairs']} held-out pairs right ({found['accuracy']:.1%}), "
            f"{found['seconds']:.0f} s."
        )


def report(results: Results, part: str, images: Path | None) -> None:
    """The tables of a part, and its picture."""
    entries = results.of(part)
    if not entries:
        return
    print(f"\n## {part}\n")
    if part == "human":
        print(human_table(entries))
    else:
        names = CURVES if part == "direct" else ("score", *CURVES)
        print(policy_table(entries, part))
        print(f"\n{curve_table(entries, names)}")
    if images is not None:
        import plots

        draw = {
            "direct": plots.plot_direct,
            "learned": plots.plot_learned,
            "human": plots.plot_human,
        }
        print(f"\n{draw[part](entries, images)}")


def estimate(
    bench: Workbench,
    plan: Plan,
    todo: Sequence[tuple[str, int]],
    pairs: PairPlan | None,
    fits: Sequence[tuple[str, int, int]],
    console: Console,
) -> None:
    """Say how long it will take, from a short trial of each kind of work."""
    seconds: dict[str, float] = {}
    if todo:
        parts = [part for part, _ in todo]
        for part, taken in zip(parts, policy_seconds(bench, plan, parts), strict=True):
            seconds[part] = seconds.get(part, 0.0) + taken
    if pairs is not None and fits:
        seconds["human"] = fit_seconds(bench, pairs, fits)
    if seconds:
        each = ", ".join(f"{part} {taken / 60:.0f}" for part, taken in seconds.items())
        console.print(
            f"About {sum(seconds.values()) / 60:.0f} minutes ({each}), by a short trial on this "
            f"machine with {torch.get_num_threads()} threads."
        )


def policy_seconds(bench: Workbench, plan: Plan, parts: Sequence[str]) -> Iterator[float]:
    """Seconds of each part, by one rollout and one PPO iteration."""
    prompts = [bench.train[row % len(bench.train)] for row in range(plan.ppo.batch_size)]
    head = ScalarHead(bench.base.hidden_size)
    trial = policy_learning.new_trainer(
        bench, plan.ppo, 0, lambda rollout: torch.zeros(len(rollout)), head
    )
    iteration = _seconds_of(lambda: trial.iteration(prompts))
    many = [bench.train[row % len(bench.train)] for row in range(ROWS_AT_ONCE)]
    rollout = _seconds_of(lambda: bench.sample(START, many, plan.ppo, 0))
    for part in parts:
        replies = 2 * len(bench.held_out) * plan.held_out_replies
        replies += policy_learning.REFERENCE_SAMPLES
        if part == "learned":
            replies += plan.rankings * plan.replies
        yield plan.ppo.iterations * iteration + replies / ROWS_AT_ONCE * rollout


def fit_seconds(bench: Workbench, plan: PairPlan, fits: Sequence[tuple[str, int, int]]) -> float:
    """Seconds of the fits, by a forward pass over a few pairs; TRL is taken to be as fast."""
    few = plan.split.train[:_PROBED_PAIRS]
    frozen_features(bench, None, few[:1])
    taken = _seconds_of(lambda: frozen_features(bench, None, few))
    a_token = taken / sum(len(one) for example in few for one in example.sequences)
    tokens = [
        sum(len(one) for example in part for one in example.sequences)
        for part in (plan.split.train, plan.split.held_out)
    ]
    passes = len({method for method, _, _ in fits if method.startswith("head")})
    total = passes * sum(tokens) * a_token
    for method, size, _ in fits:
        if method in ("adapter", "trl"):
            share = size / len(plan.split.train)
            steps = _STEP_COST * plan.reward.epochs + 2  # features before and after
            total += (share * tokens[0] * steps + tokens[1]) * a_token
    return total


def fits_to_do(
    arguments: argparse.Namespace, plan: PairPlan, results: Results, console: Console
) -> Iterator[tuple[str, int, int]]:
    """(method, training pairs, seed) of every fit that the file does not hold."""
    methods = list(arguments.methods)
    if "trl" in methods and not trl_is_installed():
        methods.remove("trl")
        console.print(
            "TRL is left out, as it is not installed. Run: make install, or pip install "
            "'chatrlhf[dev]'"
        )
    whole = len(plan.split.train)
    for method in [LONGER, *methods]:
        is_head = method.startswith("head")
        asked = arguments.sizes if is_head else arguments.adapter_sizes
        seeds = arguments.seeds if is_head else arguments.adapter_seeds
        sizes = sorted({*(one for one in asked if 2 <= one < whole), whole})
        for size in [0] if method == LONGER else sizes:
            for seed in seeds[:1] if method == LONGER else seeds:
                key = {"part": "human", "method": method, "train_pairs": size, "seed": seed}
                if not results.has(key, plan.settings(method)):
                    yield method, size, seed


def _seconds_of(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _require_matplotlib() -> None:
    try:
        import plots  # noqa: F401
    except ImportError as error:
        raise SystemExit(
            "--images needs matplotlib. Run: pip install 'chatrlhf[bench]' (in a clone: "
            "pip install -e '.[bench]')."
        ) from error


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
