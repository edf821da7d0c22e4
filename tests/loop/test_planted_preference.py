"""A planted preference: drawn at random, told with noise and flips, recovered, and followed.

Each letter has a utility drawn at random; a reply's utility is the mean of its letters'. A rater
ranks replies by Plackett-Luce with these utilities and turns a quarter of the rankings upside down.
Nothing in the loop knows the utilities.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from tiny_loop import LETTERS, TinyLoop
from tiny_model import write_tiny_model

from chatrlhf.loop.intervals import Interval, bootstrap_interval
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.reward_model import RewardModel
from chatrlhf.models.reward_terms import RewardTerms
from chatrlhf.training.reward import score_sequences
from storage import versions

SEEDS = range(5)
RANKINGS = 192
FLIPPED = 0.25
SPREAD = 3.0  # of the letters' utilities, in units of Plackett-Luce's noise


class PlantedRater:
    """Utilities of letters, and rankings that follow them noisily."""

    def __init__(self, seed):
        self.random = random.Random(f"planted/{seed}")
        drawn = np.array([self.random.gauss(0.0, 1.0) for _ in LETTERS])
        drawn = SPREAD * (drawn - drawn.mean()) / drawn.std()
        self.utilities = dict(zip(LETTERS, drawn.tolist(), strict=True))

    def utility(self, text):
        known = [self.utilities[letter] for letter in text if letter in self.utilities]
        return sum(known) / max(len(text), 1)

    def noisy(self, text):
        # Utilities plus Gumbel noise order replies as Plackett-Luce does (Yellott 1977).
        return self.utility(text) - float(np.log(self.random.expovariate(1.0)))


@dataclass(frozen=True)
class Outcome:
    """What one seed led to; ``gain`` is in true utility, 0 where no version was promoted."""

    pair_accuracy: float
    rank_correlation: float
    gain: Interval
    message: str


def reward_model_of(loop, version):
    """The reward model that a version was published with."""
    reward = read_version(loop.settings.versions_dir / version).components["reward"]
    terms = RewardTerms.from_state(reward.head, loop.base.hidden_size)
    loop.bank.add("reward")
    loop.bank.load_state("reward", reward.lora)
    return RewardModel(loop.base, loop.bank, "reward", terms.linear_total())


def agreement(scores, truth):
    """Share of unequal pairs in the same order, and Spearman's correlation of ranks."""
    one, other = np.triu_indices(len(truth), 1)
    differs = truth[one] != truth[other]
    agrees = np.sign(scores[one] - scores[other]) == np.sign(truth[one] - truth[other])
    ranks = [
        [np.mean(values < v) + np.mean(values <= v) for v in values] for values in (scores, truth)
    ]
    return float(agrees[differs].mean()), float(np.corrcoef(*ranks)[0, 1])


def learn(folder, model, seed):
    """Demonstrations, rankings of a planted rater, one round; what came of it."""
    # Replies are cut at 12 tokens: a dear cut keeps long ones from being worth it.
    held_back = {"missing_eos_score": -3.0, "kl_coefficient": 0.1}
    loop = TinyLoop(folder, model, seed=seed, ppo=held_back)
    rater = PlantedRater(seed)
    loop.demonstrate()
    assert loop.round("sft").state == "succeeded"
    before = versions.get_alias(loop.db, "live")
    loop.rank(RANKINGS, score=rater.noisy, reversed_share=FLIPPED)
    run = loop.round()
    after = versions.get_alias(loop.db, "live")
    before_after = [loop.score_of(name, score=rater.utility).numpy() for name in (before, after)]
    recovered = (0.0, 0.0)
    if run.result_version:
        # Replies that nobody ranked, to prompts that nobody asked.
        rollout = loop.rollout([f"letters {n}" for n in range(500, 628)], seed=9, version=before)
        bodies = loop.bodies(rollout)
        truth = np.array([rater.utility(loop.base.chat_format.decode(body)) for body in bodies])
        scores = score_sequences(reward_model_of(loop, after), rollout.sequences, 32)
        recovered = agreement(scores.numpy(), truth)
    loop.db.close()
    gain = bootstrap_interval(before_after[1] - before_after[0])  # prompt by prompt
    return Outcome(*recovered, gain, run.message)


@pytest.mark.slow
def test_a_planted_preference_is_recovered_and_followed(tmp_path):
    model = write_tiny_model(tmp_path / "model", initializer_range=0.3)
    outcomes = [learn(tmp_path / str(seed), model, seed) for seed in SEEDS]
    assert sum(outcome.gain.low > 0.0 for outcome in outcomes) >= 4, outcomes
    assert sum(outcome.pair_accuracy > 0.7 for outcome in outcomes) >= 4, outcomes
    assert sum(outcome.rank_correlation > 0.6 for outcome in outcomes) >= 4, outcomes
