"""Terms of a reward: by hand, normalised, folded into one head, saved and loaded."""

from __future__ import annotations

import math

import pytest
import torch
from serving import random_lora
from tiny_model import write_tiny_model

from chatrlhf.errors import VersionError
from chatrlhf.models.adapter_files import AdapterShape, Component, read_version, write_version
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_terms import FeatureScale, RewardTerms, Term

HIDDEN = 4
WIDTH = 3 * HIDDEN


def features(rows, seed=0, width=WIDTH):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3 + 5


def made(penalty=0.0, *, classifier=False, seed=1, width=WIDTH):
    """Three ranking heads, one label, and the classifier if wanted, not normalised yet."""
    generator = torch.Generator().manual_seed(seed)
    scale = FeatureScale(
        torch.randn(width, generator=generator), torch.rand(width, generator=generator) + 0.5
    )
    terms = {
        "ranking": Term.linear(2.0, torch.randn(3, width, generator=generator)),
        "label:toxic": Term.linear(-0.5, torch.randn(1, width, generator=generator)),
    }
    if classifier:
        terms["classifier"] = Term.external(0.25)
    return RewardTerms(scale, terms, penalty)


def test_the_total_by_hand():
    terms = RewardTerms(
        FeatureScale(torch.zeros(3), torch.tensor([1.0, 0.5, 2.0])),
        {
            "ranking": Term(
                2.0,
                torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
                torch.tensor([1.0, -1.0]),
                torch.tensor(4.0),
            ),
            "label:toxic": Term(
                -1.0, torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([1.0]), torch.tensor(0.5)
            ),
            "classifier": Term(0.5, None, torch.tensor([3.0]), torch.tensor(2.0)),
        },
        penalty=0.1,
    )
    # Standardised: 5, 4, 6. Members (5 - 1) / 4 = 1 and (4 + 6 + 1) / 4 = 2.75: mean 1.875, the
    # deviation of twice them 1.75. Toxic: (8 - 1) / .5 = 14. Classifier: (7 - 3) / 2 = 2.
    found = terms.scores(torch.tensor([[5.0, 8.0, 3.0]]), torch.tensor([7.0]))
    values = {name: value.item() for name, value in found.values.items()}
    assert values == pytest.approx({"ranking": 1.875, "label:toxic": 14.0, "classifier": 2.0})
    assert found.spread.item() == pytest.approx(1.75)
    parts = {name: value.item() for name, value in found.contributions.items()}
    assert parts == pytest.approx(
        {"ranking": 3.75, "label:toxic": -14.0, "classifier": 1.0, "spread": -0.175}
    )
    assert found.total.item() == pytest.approx(3.75 - 14.0 + 1.0 - 0.175)


def test_after_normalising_each_term_has_mean_zero_and_deviation_one():
    reference, logits = features(40), torch.randn(40) * 7 - 3
    terms = made(classifier=True)
    for _ in range(2):  # a second time gives the same, not a scale of a scale
        terms = terms.normalised(reference, logits)
        for name, value in terms.scores(reference, logits).values.items():
            assert value.mean().item() == pytest.approx(0.0, abs=1e-5), name
            assert value.std().item() == pytest.approx(1.0, abs=1e-4), name
    raw = (reference - terms.scale.mean) * terms.scale.scale @ terms.terms["ranking"].heads.T
    expected = (raw.mean(1) - raw.mean()) / raw.mean(1).std()
    assert torch.allclose(terms.scores(reference, logits).values["ranking"], expected, atol=1e-4)


def test_members_that_differ_by_a_constant_only_have_no_spread():
    reference = features(20)
    head = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3))
    shared = FeatureScale.of(reference)
    terms = RewardTerms(shared, {"ranking": Term.linear(1.0, head.repeat(4, 1))})
    assert terms.normalised(reference).scores(features(5, 2)).spread.abs().max() < 1e-6
    apart = RewardTerms(shared, {"ranking": Term.linear(1.0, torch.cat([head, -head]))})
    raw = (shared(features(5, 2)) @ head.T)[:, 0]
    assert torch.allclose(apart.scores(features(5, 2)).spread, raw.abs(), atol=1e-5)


def test_the_spread_counts_only_with_a_penalty():
    reference = features(30)
    without = made().normalised(reference).scores(features(6, 2))
    with_it = made(penalty=0.7).normalised(reference).scores(features(6, 2))
    assert "spread" not in without.contributions
    assert torch.allclose(with_it.total, without.total - 0.7 * without.spread, atol=1e-5)


def test_all_linear_terms_fold_into_one_head():
    terms = made().normalised(features(30))
    new = features(8, 2)
    head = terms.linear_total()
    assert torch.allclose(head(new), terms.scores(new).total, atol=1e-4)


def test_the_classifier_is_no_part_of_the_head():
    terms = made(classifier=True).normalised(features(30), torch.randn(30))
    new = features(8, 2)
    assert torch.allclose(terms.linear_total()(new), terms.scores(new).total, atol=1e-4)
    assert set(terms.scores(new).values) == {"ranking", "label:toxic"}
    assert set(terms.scores(new, torch.zeros(8)).values) == {"ranking", "label:toxic", "classifier"}


def test_features_are_standardised_over_the_replies_of_a_fit():
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) * 30 + 7
    rows[:, 2] = 4.0  # one that never changes
    scale = FeatureScale.of(rows)
    found = scale(rows)
    assert torch.allclose(found.mean(0), torch.zeros(6), atol=1e-4)
    # The last state, the first third, is made small.
    assert torch.allclose(found.std(0), torch.tensor([0.3, 0.3, 0, 1, 1, 1]), atol=1e-4)
    assert scale(torch.full((1, 6), 1e6))[0, 2] == 0.0  # nor does it count where it does


def test_saving_and_loading_a_version_keeps_every_score(tmp_path):
    base = load_base_model(
        write_tiny_model(tmp_path / "m", hidden=32), quantization="fp32", device="cpu"
    )
    bank = LoraBank(base.model, 4, 4.0)
    width = 3 * base.hidden_size
    terms = made(0.3, classifier=True, width=width).normalised(
        features(20, width=width), torch.randn(20)
    )
    components = {
        "policy": Component(random_lora(bank, 1)),
        "reward": Component(random_lora(bank, 2), terms.state()),
    }
    write_version(tmp_path, "v1", components, AdapterShape(4, 4.0, bank.target_modules), {})
    stored = read_version(tmp_path / "v1").components["reward"]
    loaded = RewardTerms.from_state(stored.head, base.hidden_size)
    new, logits = features(7, 5, width), torch.randn(7)
    before, after = terms.scores(new, logits), loaded.scores(new, logits)
    assert torch.equal(after.total, before.total)
    assert torch.equal(after.spread, before.spread)
    assert all(torch.equal(after.values[name], before.values[name]) for name in before.values)
    assert torch.equal(terms.scores(new).total, loaded.scores(new).total)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "lacks ranking/std"),
        ("unknown", "has other"),
        ("shape", "made for another base"),
        ("one head for three", "made for another base"),
        ("flat", "shape"),
        ("not finite", "not finite"),
    ],
)
def test_terms_that_do_not_fit_are_refused(change, words):
    state = made().normalised(features(9)).state()
    if change == "missing":
        del state["ranking/std"]
    elif change == "unknown":
        state["other"] = torch.zeros(1)
    elif change == "shape":
        state["label:toxic/heads"] = torch.zeros(1, WIDTH + 1)
    elif change == "one head for three":
        state["ranking/means"] = torch.zeros(1)
    elif change == "flat":
        state["ranking/heads"] = torch.zeros(WIDTH)
    else:
        state["scale/mean"][0] = math.nan
    with pytest.raises(VersionError, match=words):
        RewardTerms.from_state(state, HIDDEN)
