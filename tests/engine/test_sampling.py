"""Sampling against a brute-force reference in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatrlhf.engine.requests import Sampling
from chatrlhf.engine.sampling import RowGenerator, nucleus, sample, uniforms_at
from chatrlhf.errors import ModelError


def reference_kept(logits, sampling):
    """Ids that top-k and then top-p keep, by sorting everything."""
    scaled = np.asarray(logits, dtype=np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    if 0 < sampling.top_k < len(weights):
        weights[logits < np.sort(logits)[-sampling.top_k]] = 0.0
    order = np.argsort(-weights, kind="stable")
    mass, kept = 0.0, []
    for token in order:
        if kept and mass >= sampling.top_p * weights.sum():
            break
        if weights[token] > 0:
            kept.append(token)
            mass += weights[token]
    return np.sort(kept), weights


def reference_token(logits, sampling, uniform):
    """The kept token whose share of [0, 1) holds ``uniform``, and the distance to an edge."""
    kept, weights = reference_kept(logits, sampling)
    cumulative = np.cumsum(weights[kept]) / weights[kept].sum()
    place = int(np.searchsorted(cumulative, uniform, side="right"))
    return kept[min(place, len(kept) - 1)], np.abs(cumulative - uniform).min()


SETTINGS = [
    Sampling(1.0, 1.0, 0),
    Sampling(0.7, 1.0, 0),
    Sampling(0.9, 0.95, 0),
    Sampling(1.3, 0.5, 0),
    Sampling(1.0, 1.0, 20),
    Sampling(0.8, 0.9, 600),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("width", [7, 512, 1000, 20_000])
def test_the_token_is_that_of_the_inverse_cumulative_distribution(sampling, width):
    generator = torch.Generator().manual_seed(width)
    logits = torch.randn(24, width, generator=generator) * 4
    uniforms = torch.rand(24, generator=generator, dtype=torch.float64)
    tokens, _ = sample(logits, sampling, uniforms)
    for row in range(24):
        expected, margin = reference_token(logits[row].numpy(), sampling, float(uniforms[row]))
        # Rounding may decide at the very edge of a token's share.
        assert int(tokens[row]) == expected or margin < 1e-5


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-53])
@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_the_ends_of_the_unit_interval_give_kept_tokens(sampling, uniform):
    logits = torch.full((1, 1500), -math.inf)
    logits[0, 3], logits[0, 700] = 1.0, 1.0
    tokens, _ = sample(logits, sampling, torch.tensor([uniform], dtype=torch.float64))
    expected = 3 if uniform == 0.0 or sampling.top_p <= 0.5 else 700
    assert tokens.tolist() == [expected]


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0, 0), Sampling(1.5, 0.8, 6)], ids=str)
def test_counts_follow_the_distribution(sampling):
    logits = torch.tensor([2.0, 0.5, -1.0, 1.0, 0.0, -2.0, 0.25, 1.5])
    draws = 20_000
    generator = torch.Generator().manual_seed(1)
    uniforms = torch.rand(draws, generator=generator, dtype=torch.float64)
    tokens, _ = sample(logits.expand(draws, -1), sampling, uniforms)
    kept, weights = reference_kept(logits.numpy(), sampling)
    expected = draws * weights[kept] / weights[kept].sum()
    counts = np.bincount(tokens.numpy(), minlength=8)
    assert counts[kept].sum() == draws
    chi_square = ((counts[kept] - expected) ** 2 / expected).sum()
    assert chi_square < 24.3  # the 0.999 quantile at 7 degrees of freedom


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.0, 0.5, 3.0, 10.0]),
    top_p=st.floats(0.01, 0.999),
    width=st.sampled_from([3, 300, 30_000]),
)
def test_top_p_keeps_the_same_set_as_sorting_everything(seed, spread, top_p, width):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(width, generator=generator) * spread
    weights = (logits - logits.max()).exp()
    total = float(weights.double().sum())
    blocks = torch.nn.functional.pad(weights, (0, -width % 512)).view(-1, 512)
    kept = nucleus(blocks, total, top_p).numpy()
    order = np.argsort(-weights.numpy(), kind="stable")
    mass = np.cumsum(weights.numpy()[order].astype(np.float64))
    count = int(np.searchsorted(mass, top_p * total, side="left")) + 1
    edge = abs(mass[count - 1] - top_p * total) < 1e-9 * total
    assert edge or np.array_equal(kept, np.sort(order[:count]))


def test_tokens_tied_with_the_kth_are_kept():
    logits = torch.tensor([[1.0, 3.0, 1.0, 0.0]])
    seen = {
        int(sample(logits, Sampling(1.0, 1.0, 2), torch.tensor([u], dtype=torch.float64))[0])
        for u in np.linspace(0, 0.999, 200)
    }
    assert seen == {0, 1, 2}


def test_temperature_zero_takes_the_most_probable_token():
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    tokens, logprobs = sample(logits, Sampling(0.0, 0.5, 1), torch.tensor([0.9, 0.9]).double())
    assert tokens.tolist() == [1, 0]
    # log(e^2 / (1 + e^2 + e)) at temperature 1
    assert logprobs[0] == pytest.approx(2 - math.log(1 + math.e**2 + math.e), abs=1e-6)


def test_logprobs_are_those_of_the_whole_distribution_at_the_temperature():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    tokens, logprobs = sample(logits, Sampling(2.0, 0.1, 1), torch.tensor([0.3]).double())
    assert tokens.tolist() == [1]
    assert logprobs[0] == pytest.approx(1 - math.log(1 + math.e + math.e**0.5), abs=1e-6)


def test_logits_stay_as_they_were():
    logits = torch.randn(2, 600)
    before = logits.clone()
    sample(logits, Sampling(0.8, 0.9, 5), torch.tensor([0.1, 0.7]).double())
    assert torch.equal(logits, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_refused(bad):
    logits = torch.zeros(2, 600)
    logits[1, 5] = bad
    with pytest.raises(ModelError, match="not numbers"):
        sample(logits, Sampling(), torch.tensor([0.1, 0.7]).double())


def test_a_row_draws_the_same_numbers_in_any_order():
    forward, backward = RowGenerator(5, 2), RowGenerator(5, 2)
    steps = [0, 1, 255, 256, 700]
    drawn = {step: forward.uniform(step) for step in steps}
    assert {step: backward.uniform(step) for step in reversed(steps)} == drawn
    assert all(0.0 <= value < 1.0 for value in drawn.values())


def test_rows_and_seeds_draw_different_numbers():
    values = {RowGenerator(seed, row).uniform(0) for seed in (0, 1, -1, 2**40) for row in range(3)}
    assert len(values) == 12


def test_draws_are_uniform():
    draws = np.array(
        [RowGenerator(3, row).uniform(step) for row in range(8) for step in range(500)]
    )
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert (((counts - 200) ** 2) / 200).sum() < 43.8  # 0.999 quantile at 19 degrees of freedom


def test_uniforms_at_gathers_the_rows():
    generators = [RowGenerator(1, 0), RowGenerator(1, 1)]
    expected = [generator.uniform(4) for generator in generators]
    assert uniforms_at(generators, 4).tolist() == expected
