"""The native sampler draws as the torch sampler does, checked against sums in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from chatrlhf.engine.drawing import Drawer, Wanted, draw_one
from chatrlhf.engine.requests import Sampling
from chatrlhf.engine.sampling import sample
from chatrlhf.errors import ModelError
from chatrlhf.native import decoder as native

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs a C++ compiler")
SETTINGS = [
    Sampling(1.0, 1.0),
    Sampling(0.7, 0.9),
    Sampling(1.0, 0.95),
    Sampling(1.0, 1e-6),
    Sampling(1.3, 0.999999),
    Sampling(1.0, 1.0, 40),
    Sampling(0.8, 0.9, 40),
    Sampling(1.0, 0.5, 1000),
    Sampling(0.0, 0.9, 5),
]


def logits_of(rows, width, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, width, generator=generator) * spread
    logits[:, 5:11] = -1e30  # control tokens
    return logits


def uniforms_of(rows, seed=1):
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(logits, sampling, uniforms, threads=2):
    return draw_one(Drawer(threads), Wanted(logits, sampling, uniforms))


def kept_mass(row, sampling):
    """Ids that may be drawn, in the order of the vocabulary, and their cumulative mass."""
    p = torch.softmax(row.double() / sampling.temperature, -1)
    kept = torch.ones_like(p, dtype=torch.bool)
    if 0 < sampling.top_k < len(row):
        kept &= row >= row.topk(sampling.top_k).values[-1]
    if sampling.top_p < 1.0:
        order = (p * kept).sort(descending=True, stable=True).indices
        mass = (p * kept)[order]
        before = mass.cumsum(0) - mass
        kept[order[before >= sampling.top_p * mass.sum()]] = False
    ids = kept.nonzero()[:, 0]
    return ids, p[ids].cumsum(0)


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize(("width", "spread"), [(37, 2.0), (700, 0.5), (20_011, 4.0), (3000, 9.0)])
def test_tokens_are_those_that_the_uniform_number_falls_into(sampling, width, spread):
    logits, uniforms = logits_of(24, width, spread), uniforms_of(24)
    drawn = draw(logits, sampling, uniforms)
    same = 0
    token_ids, logprobs = sample(logits, sampling, uniforms)
    for row, (token, uniform) in enumerate(
        zip(drawn.token_ids.tolist(), uniforms.tolist(), strict=True)
    ):
        if sampling.temperature:
            ids, mass = kept_mass(logits[row], sampling)
            place = (ids == token).nonzero()
            assert len(place) == 1
            target, slack = uniform * float(mass[-1]), 1e-4 * float(mass[-1])
            above = float(mass[place[0, 0]])
            below = float(mass[place[0, 0] - 1]) if place[0, 0] else 0.0
            assert below - slack <= target <= above + slack
        else:
            assert token == int(logits[row].argmax())
        same += token == int(token_ids[row])
        own = torch.log_softmax(logits[row].double() / (sampling.temperature or 1.0), -1)[token]
        assert float(drawn.logprobs[row]) == pytest.approx(float(own), abs=1e-5)
    assert same >= 23  # a boundary between tokens may lie within rounding
    assert drawn.token_ids.dtype == token_ids.dtype
    assert drawn.logprobs.dtype == logprobs.dtype


def test_a_row_draws_the_same_beside_others_and_with_any_number_of_threads():
    logits, uniforms = logits_of(12, 5000, 4.0), uniforms_of(12)
    wanted = [
        Wanted(logits[row : row + 2], SETTINGS[row % len(SETTINGS)], uniforms[row : row + 2])
        for row in range(0, 12, 2)
    ]
    together = Drawer(3).draw(wanted)
    for one, of_all in zip(wanted, together, strict=True):
        alone = draw(one.logits, one.sampling, one.uniforms, threads=1)
        assert torch.equal(alone.token_ids, of_all.token_ids)
        assert torch.equal(alone.logprobs, of_all.logprobs)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("threads", [2, None], ids=["native", "torch"])
def test_only_the_request_whose_logits_are_not_numbers_gets_no_tokens(bad, threads):
    logits, uniforms = logits_of(6, 900, 2.0), uniforms_of(6)
    logits[3, 450] = bad
    wanted = [
        Wanted(logits[row : row + 2], SETTINGS[1], uniforms[row : row + 2]) for row in (0, 2, 4)
    ]
    first, second, third = Drawer(threads).draw(wanted)
    assert isinstance(second, ModelError)
    assert "not numbers" in str(second)
    for found, row in ((first, 0), (third, 4)):
        token_ids, _ = sample(logits[row : row + 2], SETTINGS[1], uniforms[row : row + 2])
        assert found.token_ids.tolist() == token_ids.tolist()


def test_draws_have_the_frequencies_of_the_distribution():
    count, sampling = 20_000, Sampling(0.9, 0.8)
    row = logits_of(1, 60, 1.5)[0]
    ids, mass = kept_mass(row, sampling)
    expected = count * torch.diff(mass, prepend=mass.new_zeros(1)) / mass[-1]
    drawn = draw(row.expand(count, -1).contiguous(), sampling, uniforms_of(count))
    seen = torch.bincount(drawn.token_ids, minlength=60)[ids].double()
    assert int(seen.sum()) == count
    freedom = len(ids) - 1
    assert float(((seen - expected) ** 2 / expected).sum()) < freedom + 4.5 * math.sqrt(2 * freedom)


def test_tied_tokens_are_kept_in_the_order_of_the_vocabulary():
    logits = torch.full((2, 40), -50.0)
    logits[:, [7, 20, 33]] = 1.0
    half = draw(logits, Sampling(1.0, 0.6), torch.tensor([0.49, 0.51], dtype=torch.float64))
    assert half.token_ids.tolist() == [7, 20]  # two of three have the mass
    tied = draw(logits, Sampling(1.0, 1.0, 2), torch.tensor([0.3, 0.9], dtype=torch.float64))
    assert tied.token_ids.tolist() == [7, 33]  # tied with the second: all three
