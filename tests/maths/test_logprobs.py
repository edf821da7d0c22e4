"""Blockwise token statistics against the plain formula in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chatrlhf.maths import logprobs
from chatrlhf.maths.logprobs import token_statistics

N, H, V = 7, 12, 53
SIZES = [1, 7, 52, 53, 1000]  # of a block; the last one is the whole vocabulary and more
KINDS = [
    {},
    {"temperature": 0.7},
    {"softcap": 2.5},
    {"bias": True},
    {"temperature": 1.6, "softcap": 3.0, "bias": True},
]


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SIZES)
def block(request, monkeypatch):
    monkeypatch.setattr(logprobs, "BLOCK_LOGITS", 1)
    monkeypatch.setattr(logprobs, "_LEAST_BLOCK_TOKENS", request.param)
    return request.param


def inputs():
    targets = torch.tensor([0, 52, 17, 17, 31, 6, 7])
    return numbers(N, H, seed=1), numbers(V, H, seed=2), targets, numbers(V, seed=3)


def plain(hidden, weight, targets, *, temperature=1.0, softcap=None, bias=None):
    """The same by definition: log-softmax of all logits, float64."""
    logits = hidden.double() @ weight.double().T
    if bias is not None:
        logits = logits + bias.double()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    log_p = torch.log_softmax(logits / temperature, -1)
    return log_p[torch.arange(len(targets)), targets], -(log_p.exp() * log_p).sum(-1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "+".join(kind) or "plain")
def test_values_and_gradients_are_those_of_log_softmax(block, kind):
    hidden, weight, targets, bias = inputs()
    options = {**kind, "bias": bias} if kind.get("bias") else dict(kind)
    for_logprobs, for_entropies = numbers(N, seed=4), numbers(N, seed=5)

    ours = hidden.clone().requires_grad_()
    named = dict(options)
    found = token_statistics(ours, weight, targets, head_bias=named.pop("bias", None), **named)
    ((found.logprobs * for_logprobs).sum() + (found.entropies * for_entropies).sum()).backward()

    theirs = hidden.double().requires_grad_()
    expected = plain(theirs, weight, targets, **options)
    ((expected[0] * for_logprobs).sum() + (expected[1] * for_entropies).sum()).backward()

    assert torch.allclose(found.logprobs.double(), expected[0], atol=1e-5)
    assert torch.allclose(found.entropies.double(), expected[1], atol=1e-5)
    assert torch.allclose(ours.grad.double(), theirs.grad, atol=2e-5)


@pytest.mark.parametrize("part", ["logprobs", "entropies"])
def test_each_output_alone_has_the_right_gradient(block, part):
    hidden, weight, targets, _ = inputs()
    ours = hidden.clone().requires_grad_()
    getattr(token_statistics(ours, weight, targets, 0.8), part).sum().backward()
    theirs = hidden.double().requires_grad_()
    plain(theirs, weight, targets, temperature=0.8)[part == "entropies"].sum().backward()
    assert torch.allclose(ours.grad.double(), theirs.grad, atol=2e-5)


def test_gradient_agrees_with_finite_differences():
    hidden, weight, targets, _ = inputs()

    def total(at):
        log_p, entropy = plain(at, weight, targets, temperature=1.3, softcap=2.0)
        return float((log_p + 0.5 * entropy).sum())

    ours = hidden.clone().requires_grad_()
    found = token_statistics(ours, weight, targets, 1.3, 2.0)
    (found.logprobs + 0.5 * found.entropies).sum().backward()
    for row, column in [(0, 0), (3, 5), (6, 11)]:
        step = torch.zeros(N, H, dtype=torch.float64)
        step[row, column] = 1e-5
        slope = (total(hidden.double() + step) - total(hidden.double() - step)) / 2e-5
        assert ours.grad[row, column].item() == pytest.approx(slope, abs=1e-4)


def test_two_tokens_by_hand():
    # Logits are ln 3 and 0: probabilities 3/4 and 1/4.
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[math.log(3.0)], [0.0]])
    found = token_statistics(hidden, weight, torch.tensor([1]))
    assert found.logprobs.item() == pytest.approx(math.log(0.25))
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert found.entropies.item() == pytest.approx(entropy)
    # At temperature 1/2 the odds are squared: 9/10 and 1/10.
    cold = token_statistics(hidden, weight, torch.tensor([1]), 0.5)
    assert cold.logprobs.item() == pytest.approx(math.log(0.1))


@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: "+".join(kind) or "plain")
@pytest.mark.parametrize("first", [0, 1])
def test_without_suppressed_tokens_the_vocabulary_is_as_if_they_were_not_there(block, kind, first):
    hidden, weight, _, bias = inputs()
    targets = torch.tensor([7, 52, 17, 17, 31, 6, 7])
    suppressed = (slice(first, 6), slice(18, 30), slice(40, 52))
    is_kept = torch.ones(V, dtype=torch.bool)
    for run in suppressed:
        is_kept[run] = False
    places = (is_kept.cumsum(0) - 1)[targets]  # in the vocabulary without them
    options = {**kind, "bias": bias} if kind.get("bias") else dict(kind)
    named = dict(options)
    ours = hidden.clone().requires_grad_()
    found = token_statistics(
        ours, weight, targets, head_bias=named.pop("bias", None), suppressed=suppressed, **named
    )
    (found.logprobs - 0.3 * found.entropies).sum().backward()
    theirs = hidden.double().requires_grad_()
    if "bias" in options:
        options["bias"] = bias[is_kept]
    expected = plain(theirs, weight[is_kept], places, **options)
    (expected[0] - 0.3 * expected[1]).sum().backward()
    assert torch.allclose(found.logprobs.double(), expected[0], atol=1e-5)
    assert torch.allclose(found.entropies.double(), expected[1], atol=1e-5)
    assert torch.allclose(ours.grad.double(), theirs.grad, atol=2e-5)
    alone = hidden.clone().requires_grad_()  # the gradient of kept exponentials
    token_statistics(alone, weight, targets, suppressed=suppressed).logprobs.sum().backward()
    theirs = hidden.double().requires_grad_()
    plain(theirs, weight[is_kept], places)[0].sum().backward()
    assert torch.allclose(alone.grad.double(), theirs.grad, atol=2e-5)


def test_equal_logits_have_the_entropy_of_a_uniform_distribution(block):
    found = token_statistics(torch.ones(2, H), torch.ones(V, H), torch.tensor([3, 50]))
    assert found.entropies.tolist() == pytest.approx([math.log(V)] * 2, abs=1e-5)
    assert found.logprobs.tolist() == pytest.approx([-math.log(V)] * 2, abs=1e-5)


def test_enormous_logits_neither_overflow_nor_lose_the_gradient(block):
    hidden, weight, targets, _ = inputs()
    ours = (hidden * 200).requires_grad_()
    found = token_statistics(ours, weight, targets)
    (found.logprobs + found.entropies).sum().backward()
    expected = plain(hidden * 200, weight, targets)
    assert torch.allclose(found.logprobs.double(), expected[0], rtol=1e-5, atol=1e-3)
    assert torch.allclose(found.entropies.double(), expected[1], atol=1e-3)
    assert torch.isfinite(ours.grad).all()


def test_no_positions_give_no_statistics():
    hidden = torch.zeros(0, H, requires_grad=True)
    found = token_statistics(hidden, numbers(V, H, seed=2), torch.zeros(0, dtype=torch.long))
    found.logprobs.sum().backward()
    assert found.logprobs.shape == found.entropies.shape == (0,)


def test_bfloat16_head_gives_float32_statistics_close_to_exact_ones():
    hidden, weight, targets, _ = inputs()
    half, half_weight = hidden.bfloat16(), weight.bfloat16()
    ours = half.clone().requires_grad_()
    found = token_statistics(ours, half_weight, targets)
    assert found.logprobs.dtype == torch.float32
    found.logprobs.sum().backward()
    assert ours.grad.dtype == torch.bfloat16
    expected = plain(half, half_weight, targets)
    assert torch.allclose(found.logprobs.double(), expected[0], atol=0.05)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("entropy", [0.0, 1.0])
def test_kept_exponentials_change_nothing_but_rounding(monkeypatch, softcap, entropy):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 8, generator=generator)
    head = torch.randn(3000, 8, generator=generator).bfloat16()
    targets = torch.randint(0, 3000, (6,), generator=generator)
    monkeypatch.setattr(logprobs, "BLOCK_LOGITS", 1)  # blocks of 1024 tokens
    found = []
    block_bytes = 6 * 1024 * 2
    for kept in (0, block_bytes, 10 * block_bytes):
        monkeypatch.setattr(logprobs, "KEPT_BYTES", kept)
        leaf = hidden.clone().requires_grad_()
        statistics = logprobs.token_statistics(leaf, head, targets, 0.7, softcap)
        (statistics.logprobs + entropy * statistics.entropies).sum().backward()
        found.append((*statistics, leaf.grad))
    exact = hidden.double().requires_grad_()
    expected = plain(exact.bfloat16().double(), head, targets, temperature=0.7, softcap=softcap)
    (expected[0] + entropy * expected[1]).sum().backward()
    error = (found[0][2] - exact.grad).abs().max()
    for logps, entropies, grad in found[1:]:
        assert torch.equal(logps, found[0][0])
        assert torch.equal(entropies, found[0][1])
        # As far from the exact gradient as without keeping, up to bfloat16's rounding.
        assert (grad - exact.grad).abs().max() <= 2 * error + 0.01


def test_no_tensor_ever_holds_the_logits_of_all_positions(monkeypatch):
    positions, vocabulary = 64, 20_000
    monkeypatch.setattr(logprobs, "KEPT_BYTES", 0)
    monkeypatch.setattr(logprobs, "BLOCK_LOGITS", positions * 1024)
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            sizes.extend(leaf.numel() for leaf in tree_leaves(found) if torch.is_tensor(leaf))
            return found

    hidden = torch.randn(positions, 4, requires_grad=True)
    head = torch.randn(vocabulary, 4)
    targets = torch.randint(0, vocabulary, (positions,))
    with Sizes():
        token_statistics(hidden, head, targets).logprobs.sum().backward()
    sizes = [size for size in sizes if size != head.numel()]  # views of the head itself
    assert max(sizes) == positions * 1024
