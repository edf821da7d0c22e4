"""The live version's reward model is judged on prompts that neither model was fitted on."""

from __future__ import annotations

import pytest
import torch
from incumbents import incumbent, rankings

from chatrlhf.errors import VersionError
from chatrlhf.loop.incumbent import Incumbent
from chatrlhf.models.adapter_files import Component
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.training.reward import ranking_features

RIGHT = torch.tensor([0.0, -1.0, -2.0])


def perfect(examples):
    return [RIGHT[torch.tensor(one.ranks) - 1] for one in examples]


def test_only_prompts_newer_than_the_incumbent_count(parts):
    base, bank = parts
    examples = rankings()
    old, heads = incumbent(parts, newest=1)
    found = old.compared(base, bank, examples, examples, perfect(examples))
    # Prompt 0 was seen by ranking 1, so its ranking 9 does not count either.
    fresh = [one for one in examples if one.prompt_key != "prompt 0"]
    assert len(fresh) == 10
    assert (found.pairs, found.new_right) == (30, 30)
    bank.add("check")
    bank.load_state("check", old.component.lora)
    model = RewardModel(base, bank, "check", ScalarHead(base.hidden_size))
    right = 0
    for one, own in zip(fresh, ranking_features(model, fresh), strict=True):
        scores = (own @ heads.T).mean(-1).tolist()
        right += sum(
            scores[i] > scores[j] for i in range(3) for j in range(3) if one.ranks[i] < one.ranks[j]
        )
    bank.remove("check")
    assert found.old_right == right
    assert "incumbent" not in bank.names


def test_the_judged_rankings_may_be_some_of_all(parts):
    base, bank = parts
    examples = rankings()
    old, _ = incumbent(parts, newest=0)
    held_out = examples[2:8]
    found = old.compared(base, bank, examples, held_out, perfect(held_out))
    assert found.pairs == 18


@pytest.mark.parametrize("newest", [3, 12])
def test_with_too_few_new_prompts_nothing_is_compared(parts, newest):
    base, bank = parts
    examples = rankings()
    old, _ = incumbent(parts, newest)
    assert old.compared(base, bank, examples, examples, perfect(examples)) is None


def test_an_incumbent_without_a_ranking_term_is_not_compared(parts):
    base, bank = parts
    examples = rankings()
    old, _ = incumbent(parts, 0, name="label:toxic")
    assert old.compared(base, bank, examples, examples, perfect(examples)) is None


def test_an_incumbent_of_another_shape_is_refused(parts):
    base, bank = parts
    examples = rankings()
    old, _ = incumbent(parts, 0)
    broken = Incumbent(Component(old.component.lora, {"weight": torch.zeros(3)}), 0)
    with pytest.raises(VersionError):
        broken.compared(base, bank, examples, examples, perfect(examples))
