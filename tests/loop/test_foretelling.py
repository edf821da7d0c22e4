"""New rankings are judged once, by the reward model that has not learned from them."""

from __future__ import annotations

from incumbents import incumbent, rankings

from chatrlhf.loop.foretelling import foretell, foretelling_sentence
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.training.reward import ranking_features
from storage.records import Prediction


def test_only_rankings_of_unseen_prompts_that_were_not_judged_before(parts):
    old, _ = incumbent(parts, newest=3)
    found = foretell(old, "v4", *parts, rankings(), known={5, 6})
    # Prompts 0 to 2 were seen by rankings 1 to 3, so that 9 to 11 are not new either.
    assert [one.ranking_id for one in found] == [4, 7, 8, 12]
    assert {one.version for one in found} == {"v4"}


def test_the_counts_are_those_of_the_scores(parts):
    base, bank = parts
    old, heads = incumbent(parts, newest=0)
    examples = rankings()
    found = {one.ranking_id: one for one in foretell(old, "v1", base, bank, examples, known=())}
    bank.add("mine")
    bank.load_state("mine", old.component.lora)
    try:
        model = RewardModel(base, bank, "mine", ScalarHead(base.hidden_size))
        features = ranking_features(model, examples)
    finally:
        bank.remove("mine")
    for example, own in zip(examples, features, strict=True):
        scores = (own @ heads.mean(0)).tolist()
        pairs = right = 0
        for one in range(example.replies):
            for other in range(example.replies):
                if example.ranks[one] < example.ranks[other]:
                    pairs += 1
                    right += scores[one] > scores[other]
        stored = found[example.ranking_id]
        assert (stored.right_pairs, stored.pairs) == (right, pairs)


def test_a_reward_without_a_ranking_term_foretells_nothing(parts):
    old, _ = incumbent(parts, newest=0, name="label:toxic")
    assert foretell(old, "v1", *parts, rankings(), known=()) == []


def test_the_sentence_counts_pairs_and_bounds_by_rankings():
    found = [Prediction(1, "v3", 4, 6), Prediction(2, "v3", 5, 6)]
    # 9 of 12 is 75%; Wilson for 1.5 of 2 rankings: the centre is (0.75 + 3.8415 / 4) / 2.9207 =
    # 0.5856, the half width 1.96 / 2.9207 * sqrt(0.1875 / 2 + 3.8415 / 16) = 0.3877.
    assert str(foretelling_sentence(found)) == (
        "Before training, the reward model of v3 ordered 9 of 12 pairs in 2 new rankings as you "
        "did (75%, 95% interval 20%-97%; 50% is chance)."
    )
