"""The C++ kernels of a training step against torch in float64, and what happens without them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from chatrlhf.maths import logprobs
from chatrlhf.maths.softmax_sums import SoftmaxSums
from chatrlhf.native import library
from chatrlhf.native import training as native

HALF = 2.0**-8  # bfloat16 rounds to 8 bits
needs_library = pytest.mark.skipif(
    not native.fits(torch.zeros(1, dtype=torch.bfloat16)), reason="no C++ compiler"
)


def numbers(*shape, seed, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    return (2.0 * torch.randn(*shape, generator=generator)).to(dtype)


def close(ours, exact):
    """Equal up to the rounding of bfloat16, of a value or of the largest values."""
    ours = ours.double()
    allowed = HALF * exact.abs() + 1e-5 * exact.abs().max() + 1e-30
    return bool(((ours - exact).abs() <= allowed).all())


@needs_library
@pytest.mark.parametrize("columns", [1, 15, 16, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_blocks_of_logits_add_up_to_the_softmax(columns, temperature):
    logits = numbers(5, columns * 3, seed=1) * 4
    sums = SoftmaxSums(5, logits.device)
    kept = []
    for block in logits.split(columns, 1):
        keep = torch.empty(block.shape, dtype=torch.bfloat16)
        sums.add_raw(block.contiguous(), temperature, keep)
        kept.append((keep, sums.largest))
    found = sums.softmax()
    log_p = (logits.double() / temperature).log_softmax(-1)
    exact = torch.logsumexp(logits.double() / temperature, -1)
    assert torch.allclose(found.normaliser.double(), exact, atol=1e-5)
    entropies = -(log_p.exp() * log_p).sum(-1)
    assert torch.allclose(found.entropies.double(), entropies, atol=1e-5)
    p = torch.cat([k.double() * (m - found.normaliser).exp()[:, None] for k, m in kept], 1)
    assert close(p, log_p.exp())


@needs_library
def test_a_token_of_no_probability_counts_nothing():
    logits = numbers(2, 40, seed=1)
    logits[:, 7] = -1e30
    sums, others = (SoftmaxSums(2, logits.device) for _ in range(2))
    kept = torch.empty_like(logits)
    sums.add_raw(logits, 1.0, kept)
    others.add_raw(logits[:, [*range(7), *range(8, 40)]].contiguous(), 1.0, None)
    for ours, theirs in zip(sums.softmax(), others.softmax(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert kept[:, 7].tolist() == [0.0, 0.0]


@needs_library
def test_a_logit_that_is_no_number_is_not_lost():
    logits = numbers(2, 40, seed=1)
    logits[1, 37] = torch.nan
    sums = SoftmaxSums(2, logits.device)
    sums.add_raw(logits, 1.0, None)
    found = sums.softmax()
    assert torch.isfinite(found.entropies[0])
    assert torch.isnan(found.entropies[1])
    assert torch.isnan(found.normaliser[1])


@needs_library
@pytest.mark.parametrize("keep", [0, 10**9])
def test_token_statistics_are_those_of_torch(monkeypatch, keep):
    hidden, head = numbers(6, 16, seed=1) / 4, numbers(3000, 16, seed=2)
    targets = torch.tensor([0, 2999, 17, 17, 1024, 1023])
    monkeypatch.setattr(logprobs, "BLOCK_LOGITS", 1)  # blocks of 1024 tokens
    monkeypatch.setattr(logprobs, "KEPT_BYTES", keep)
    found = []
    for fits in (native.fits, lambda _: False):
        monkeypatch.setattr(native, "fits", fits)
        leaf = hidden.clone().requires_grad_()
        statistics = logprobs.token_statistics(leaf, head, targets, 0.8)
        statistics.logprobs.sum().backward()
        found.append((*(one.detach() for one in statistics), leaf.grad.float()))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max()))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)


@needs_library
@pytest.mark.parametrize("size", [1, 16, 23, 64])
@pytest.mark.parametrize("form", ["plain", "heads", "head of one row", "columns"])
def test_norms_of_any_layout(size, form):
    x = {
        "plain": numbers(3, 5, size, seed=1),
        "heads": numbers(2, 7, 3, size, seed=1).transpose(1, 2),
        "head of one row": numbers(1, 7, 3, size, seed=1).transpose(1, 2),
        "columns": numbers(size, 9, seed=1).t(),
    }[form]
    gain, eps = 1 + 0.1 * numbers(size, seed=2, dtype=torch.float32), 1e-6
    y, inverse, kept = native.rms_norm(x, gain, eps)
    wide = x.double().requires_grad_()
    exact = wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt() * gain.double()
    assert y.shape == x.shape
    assert close(y, exact.detach())
    grad = numbers(*x.shape, seed=3)
    exact.backward(grad.double())
    found = native.rms_norm_backward(grad, kept, gain, inverse)
    assert ((found.double() - wide.grad).abs() <= 2 * HALF * wide.grad.abs() + 1e-3).all()


@needs_library
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("count", [1, 16, 37])
def test_gated_activations_and_their_gradients(silu, count):
    x, up, grad = (numbers(count, seed=seed) for seed in (1, 2, 3))
    x[0] = -60.0  # far into the tail
    wide, wide_up = x.double().requires_grad_(), up.double().requires_grad_()
    exact = (F.silu(wide) if silu else F.gelu(wide, approximate="tanh")) * wide_up
    exact.backward(grad.double())
    assert close(native.gated(x, up, silu=silu), exact.detach())
    of_x, of_up = native.gated_backward(grad, x, up, silu=silu)
    for ours, theirs in ((of_x, wide.grad), (of_up, wide_up.grad)):
        assert ((ours.double() - theirs).abs() <= 2 * HALF * theirs.abs() + 1e-4).all()


@needs_library
def test_rows_have_the_same_bits_alone_and_among_others():
    x, gain = numbers(9, 33, seed=1), numbers(33, seed=2, dtype=torch.float32)
    together, _, _ = native.rms_norm(x, gain, 1e-6)
    for row in range(9):
        assert torch.equal(native.rms_norm(x[[row]], gain, 1e-6)[0][0], together[row])


def test_other_types_are_left_to_torch():
    assert not native.fits(torch.zeros(2))
    assert not native.fits(torch.zeros(2, dtype=torch.float16))


@pytest.mark.parametrize("reason", ["switched off", "no compiler", "a compiler that fails"])
def test_without_a_library_torch_does_it_all(tmp_path, reason):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment |= {
        "switched off": {"CHATRLHF_NATIVE": "0"},
        "no compiler": {"PATH": str(tmp_path), "CXX": ""},
        "a compiler that fails": {"CXX": "false"},
    }[reason]
    script = (
        "import torch\n"
        "from chatrlhf.native import training as native\n"
        "from chatrlhf.models.rms_norm import rms_norm\n"
        "x = torch.ones(2, 4, dtype=torch.bfloat16)\n"
        "assert not native.fits(x)\n"
        "assert rms_norm(3 * x, torch.ones(4), 0.0).tolist() == x.tolist()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)


@needs_library
def test_a_library_is_compiled_once_for_each_source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiler = library.find_compiler()
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int answer() { return 1; }')
    first = library._compiled(source, compiler)
    assert library._compiled(source, compiler) == first
    source.write_text('extern "C" int answer() { return 2; }')
    second = library._compiled(source, compiler)
    assert second != first
    assert sorted(first.parent.iterdir()) == sorted([first, second])  # nothing else is left
