"""Our LoRA layers against peft's, on the same weights."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_model import write_tiny_model
from transformers import AutoModelForCausalLM

from chatrlhf.errors import VersionError
from chatrlhf.models.adapter_files import AdapterShape, Component, read_version, write_version
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank

RANK, ALPHA = 3, 7.5
IDS = torch.tensor([[5, 60, 71, 8, 130, 200], [9, 9, 40, 222, 17, 3]])
# What peft is told to adapt; phi3 fuses projections, so that its layers differ.
TARGETS = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gemma3": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
}
families = pytest.mark.parametrize("family", sorted(TARGETS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        family: write_tiny_model(tmp_path_factory.mktemp(family), family, hidden=32)
        for family in TARGETS
    }


@pytest.fixture
def load(folders):
    def loaded(family="llama", alpha=ALPHA):
        base = load_base_model(folders[family], quantization="fp32", device="cpu")
        return base, LoraBank(base.model, RANK, alpha)

    return loaded


def logits_of(base, ids=IDS):
    return base.project(base.body(ids).last_hidden_state)


def random_state(bank, seed, scale=0.3):
    bank.add("template")
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: torch.randn(tensor.shape, generator=generator) * scale
        for key, tensor in bank.state_of("template").items()
    }
    bank.remove("template")
    return state


def add_random(bank, name, seed, **options):
    bank.add(name, **options)
    bank.load_state(name, random_state(bank, seed))


@families
@torch.no_grad()
def test_an_untouched_adapter_changes_nothing(folders, load, family):
    plain = load_base_model(folders[family], quantization="fp32", device="cpu")
    base, bank = load(family)
    bank.add("new", trainable=True)
    assert torch.equal(logits_of(base), logits_of(plain))
    with bank.using("new"):
        assert torch.equal(logits_of(base), logits_of(plain))


@families
@torch.no_grad()
def test_peft_loads_what_was_written_and_gives_the_same_logits(folders, load, tmp_path, family):
    base, bank = load(family)
    add_random(bank, "mine", seed=1)
    bare = logits_of(base)
    with bank.using("mine"):
        ours = logits_of(base)
    shape = AdapterShape(RANK, ALPHA, bank.target_modules)
    write_version(tmp_path, "v1", {"policy": Component(bank.state_of("mine"))}, shape, {})

    plain = AutoModelForCausalLM.from_pretrained(folders[family], dtype=torch.float32).eval()
    theirs = PeftModel.from_pretrained(plain, str(tmp_path / "v1"))(input_ids=IDS).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert (ours - bare).abs().max() > 0.1


@families
@torch.no_grad()
def test_a_folder_made_by_peft_loads_with_the_same_logits(folders, load, tmp_path, family):
    plain = AutoModelForCausalLM.from_pretrained(folders[family], dtype=torch.float32).eval()
    config = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=TARGETS[family]
    )
    model = get_peft_model(plain, config)
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    theirs = model.eval()(input_ids=IDS).logits
    model.save_pretrained(str(tmp_path))

    base, bank = load(family)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert set(saved["target_modules"]) == set(bank.target_modules)
    bank.add("theirs")
    bank.load_state("theirs", load_file(tmp_path / "adapter_model.safetensors"))
    with bank.using("theirs"):
        assert torch.allclose(logits_of(base), theirs, atol=1e-4)


@families
@torch.no_grad()
def test_rows_with_different_adapters_equal_single_runs(load, family):
    base, bank = load(family)
    add_random(bank, "a", seed=1)
    add_random(bank, "b", seed=2)
    singles = {}
    for name in ("a", "b"):
        with bank.using(name):
            singles[name] = logits_of(base)
    for names in (["a", "b"], ["b", "a"], ["b", "b"]):
        with bank.using_rows(names):
            mixed = logits_of(base)
        for row, name in enumerate(names):
            assert torch.allclose(mixed[row], singles[name][row], atol=1e-5)
    assert (singles["a"] - singles["b"]).abs().max() > 0.1


@torch.no_grad()
def test_the_update_is_scaled_by_alpha_over_rank(load):
    weights = None
    updates = {}
    for alpha in (float(RANK), 2.0 * RANK):
        base, bank = load(alpha=alpha)
        weights = weights or random_state(bank, 5)
        bank.add("a")
        bank.load_state("a", weights)
        layer = base.model.get_submodule("model.layers.0.mlp.up_proj")
        x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
        before = layer(x)
        with bank.using("a"):
            updates[alpha] = layer(x) - before
    key = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    by_hand = x @ weights[key.format("A")].T @ weights[key.format("B")].T
    assert torch.allclose(updates[RANK], by_hand, atol=1e-5)
    assert torch.allclose(updates[2.0 * RANK], 2 * by_hand, atol=1e-5)


@torch.no_grad()
def test_what_was_active_comes_back_after_nesting_and_after_an_exception(load):
    base, bank = load()
    add_random(bank, "a", seed=1)
    add_random(bank, "b", seed=2)
    bare = logits_of(base)
    with bank.using("a"):
        with_a = logits_of(base)
        with pytest.raises(RuntimeError, match="stop"), bank.using_rows(["b", "a"]):
            raise RuntimeError("stop")
        assert torch.equal(logits_of(base), with_a)
        with bank.using(None):
            assert torch.equal(logits_of(base), bare)
        with bank.using("b"):
            pass
        assert torch.equal(logits_of(base), with_a)
    assert torch.equal(logits_of(base), bare)
    with pytest.raises(RuntimeError, match="stop"), bank.using("b"):
        raise RuntimeError("stop")
    assert torch.equal(logits_of(base), bare)


def missing(state):
    del state[sorted(state)[-1]]


def unknown(state):
    state["base_model.model.lm_head.lora_A.weight"] = torch.zeros(RANK, 32)


def another_shape(state):
    key = sorted(state)[-1]
    state[key] = torch.zeros(*state[key].shape[::-1])


def not_finite(state):
    state[sorted(state)[-1]][0, 0] = float("nan")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, "lacks 1 of"),
        (unknown, "no place for"),
        (another_shape, "has shape"),
        (not_finite, "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(load, damage, words):
    _, bank = load()
    add_random(bank, "a", seed=1)
    before = bank.fingerprint("a")
    state = random_state(bank, 2)
    damage(state)
    with pytest.raises(VersionError, match=words):
        bank.load_state("a", state)
    assert bank.fingerprint("a") == before


def test_only_the_active_adapter_gets_gradients_and_a_step_moves_only_it(load):
    base, bank = load()
    for seed, name in enumerate(("active", "other", "frozen")):
        add_random(bank, name, seed=seed, trainable=name != "frozen")
    before = {name: bank.fingerprint(name) for name in bank.names}
    everything = [p for name in bank.names for p in bank.parameters_of(name) if p.requires_grad]
    with bank.using("active"):
        logits_of(base).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in bank.parameters_of("active"))
    assert all(p.grad is None for name in ("other", "frozen") for p in bank.parameters_of(name))
    assert all(parameter.grad is None for parameter in base.model.parameters())
    torch.optim.Adam(everything, lr=0.1).step()
    changed = {name for name in bank.names if bank.fingerprint(name) != before[name]}
    assert changed == {"active"}


def test_adapters_are_no_parameters_of_the_base(load):
    base, bank = load()
    names = {name for name, _ in base.model.named_parameters()}
    bank.add("a", trainable=True)
    assert {name for name, _ in base.model.named_parameters()} == names
    assert not any(p.requires_grad for p in base.model.parameters())


def test_state_is_a_copy_and_fingerprints_follow_the_weights(load):
    _, bank = load()
    add_random(bank, "a", seed=1)
    bank.add("b")
    assert bank.fingerprint("a") != bank.fingerprint("b")
    bank.copy("a", "b")
    assert bank.fingerprint("a") == bank.fingerprint("b")
    state = bank.state_of("a")
    next(iter(state.values())).add_(1.0)
    assert bank.fingerprint("a") == bank.fingerprint("b")
    with torch.no_grad():
        bank.parameters_of("b")[-1][0, 0] += 1e-3
    assert bank.fingerprint("a") != bank.fingerprint("b")


def test_a_new_adapter_starts_as_in_peft(load):
    _, bank = load()
    bank.add("a", seed=3)
    bank.add("b", seed=3)
    bank.add("c", seed=4)
    assert bank.fingerprint("a") == bank.fingerprint("b") != bank.fingerprint("c")
    for key, tensor in bank.state_of("a").items():
        if ".lora_B." in key:
            assert not tensor.any()
        else:  # uniform within 1 / sqrt(inputs)
            bound = tensor.shape[1] ** -0.5
            assert 0.9 * bound < tensor.abs().max() <= bound
            assert tensor.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)


def test_names_that_exist_or_do_not_are_refused(load):
    _, bank = load()
    bank.add("a")
    with pytest.raises(ValueError, match="exists already"):
        bank.add("a")
    for attempt in (bank.remove, bank.parameters_of, bank.state_of, bank.fingerprint):
        with pytest.raises(ValueError, match="there is no adapter 'b'"):
            attempt("b")
    with pytest.raises(ValueError, match="there is no adapter 'b'"), bank.using("b"):
        pass
    with pytest.raises(ValueError, match="is active"), bank.using("a"):
        bank.remove("a")
    bank.remove("a")
    assert bank.names == ()


def test_a_model_without_decoder_layers_is_refused():
    with pytest.raises(VersionError, match="no linear layers"):
        LoraBank(torch.nn.Sequential(torch.nn.Linear(2, 2)), RANK, ALPHA)


def test_weights_survive_the_disk_exactly(load, tmp_path):
    _, bank = load()
    add_random(bank, "a", seed=1)
    shape = AdapterShape(RANK, ALPHA, bank.target_modules)
    write_version(tmp_path, "v1", {"policy": Component(bank.state_of("a"))}, shape, {})
    bank.add("b")
    bank.load_state("b", read_version(tmp_path / "v1").policy.lora)
    assert bank.fingerprint("a") == bank.fingerprint("b")
