from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional as bnb_functional
from safetensors.torch import load_file, save_file
from tiny_model import FAMILIES, never_sampled, tiny_config, write_tiny_model, write_tiny_tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GraniteConfig,
)

from chatrlhf.errors import ModelError
from chatrlhf.models import placement
from chatrlhf.models.base_model import BaseModel, load_base_model
from chatrlhf.models.fingerprint import base_sha256, known_sha256
from chatrlhf.models.memory import WeightCount, count_weights, readable_bytes
from chatrlhf.models.model_folder import check_model_folder
from chatrlhf.models.placement import check_memory, choose_device, choose_quantization

CPU = torch.device("cpu")
ON_CPU = ("nf4", "int8", "bf16", "fp32")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "models"
    monkeypatch.setenv("CHATRLHF_MODELS", str(cache))
    return cache


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        family: write_tiny_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES
    }


def some_ids(base: BaseModel, rows: int = 2, tokens: int = 9) -> torch.Tensor:
    return torch.arange(rows * tokens).reshape(rows, tokens) % base.vocab_size


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ON_CPU)
def test_body_and_project_are_the_models_logits(
    folders: dict[str, Path], family: str, quantization: str
) -> None:
    base = load_base_model(folders[family], quantization=quantization, device="cpu")
    ids = some_ids(base)
    with torch.no_grad():
        logits = base.project(base.body(ids).last_hidden_state)
        expected = base.model(input_ids=ids).logits.float()
    assert base.quantization == quantization
    assert logits.dtype == torch.float32
    assert logits.shape == (2, 9, base.vocab_size)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_logits_are_those_of_plain_transformers(folders: dict[str, Path], family: str) -> None:
    base = load_base_model(folders[family], quantization="fp32", device="cpu")
    plain = AutoModelForCausalLM.from_pretrained(folders[family], dtype=torch.float32)
    ids = some_ids(base)
    with torch.no_grad():
        logits = base.project(base.body(ids).last_hidden_state)
        torch.testing.assert_close(logits, plain(input_ids=ids).logits)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_linear_layers_are_small_and_the_head_stays_whole(
    folders: dict[str, Path], quantization: str
) -> None:
    base = load_base_model(folders["qwen3"], quantization=quantization, device="cpu")
    kinds = {type(module).__name__ for module in base.decoder.modules()}
    assert {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[quantization] in kinds
    assert "Linear" not in kinds
    assert type(base.lm_head) is torch.nn.Linear
    assert base.lm_head.weight.data_ptr() == base.model.get_input_embeddings().weight.data_ptr()


@pytest.mark.parametrize("quantization", ON_CPU)
def test_everything_is_frozen_and_in_eval_mode(folders: dict[str, Path], quantization: str) -> None:
    base = load_base_model(folders["llama"], quantization=quantization, device="cpu")
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not any(module.training for module in base.model.modules())


def test_sizes_come_from_the_config(folders: dict[str, Path]) -> None:
    base = load_base_model(folders["llama"], device="cpu")
    assert (base.hidden_size, base.vocab_size, base.context_tokens) == (64, 320, 512)
    assert base.device == CPU


def test_end_tokens_of_the_generation_config_are_known(folders: dict[str, Path]) -> None:
    base = load_base_model(folders["llama"], device="cpu")
    names = base.tokenizer.convert_ids_to_tokens(sorted(base.chat_format.end_token_ids))
    assert names == ["<|begin_of_text|>", "<|eot_id|>"]  # the tiny config lists both


@pytest.mark.parametrize("softcap", [None, 0.5])
def test_logits_to_sample_from_leave_out_control_tokens_and_rows_without_a_token(
    tmp_path: Path, softcap: float | None
) -> None:
    more = {} if softcap is None else {"final_logit_softcapping": softcap}
    folder = write_tiny_model(tmp_path / "m", "gemma3", vocab_size=328, **more)
    base = load_base_model(folder, quantization="fp32", device="cpu")
    names = {name: base.tokenizer.convert_tokens_to_ids(name) for name in ("<bos>", "<eos>")}
    assert len(base.tokenizer) == 320
    assert base.vocab_size == 328
    left_out = {*never_sampled(base), *range(320, 328)}
    assert names["<bos>"] in left_out
    assert names["<eos>"] not in left_out
    listed = [token for run in base.suppressed for token in range(run.start, run.stop)]
    assert listed == sorted(left_out)
    assert len(base.suppressed) < len(left_out)
    with torch.no_grad():
        hidden = base.body(some_ids(base)).last_hidden_state
        own, sampled = base.project(hidden), base.sampling_logits(hidden)
    assert not sampled.softmax(-1)[..., listed].any()
    kept = [token for token in range(328) if token not in left_out]
    assert torch.equal(sampled[..., kept], own[..., kept])
    assert float(own[..., listed].abs().min()) < 10


def test_a_softcap_bends_the_logits(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", "gemma3", final_logit_softcapping=0.5)
    base = load_base_model(folder, quantization="fp32", device="cpu")
    ids = some_ids(base)
    with torch.no_grad():
        logits = base.project(base.body(ids).last_hidden_state)
        torch.testing.assert_close(logits, base.model(input_ids=ids).logits)
    assert base.final_logit_softcap == 0.5
    assert float(logits.abs().max()) < 0.5


def test_a_model_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    """Granite divides its logits; a silent miss would make every probability wrong."""
    folder = tmp_path / "granite"
    folder.mkdir()
    vocabulary = write_tiny_tokenizer(folder, "llama")
    config = tiny_config("llama", vocab=len(vocabulary)).to_dict()
    for name in ("model_type", "architectures", "transformers_version", "rope_parameters"):
        config.pop(name, None)
    model = AutoModelForCausalLM.from_config(GraniteConfig(**config, logits_scaling=8.0))
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="computes its logits in a way"):
        load_base_model(folder, device="cpu")


def gradient_of_inputs(base: BaseModel, ids: torch.Tensor) -> torch.Tensor:
    embedded = base.model.get_input_embeddings()(ids).detach().requires_grad_()
    hidden = base.decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state
    loss = base.project(hidden)[..., ::7].logsumexp(-1).sum()
    gradient: torch.Tensor = torch.autograd.grad(loss, embedded)[0]
    return gradient.flatten().double()


def unpack_linear_layers(base: BaseModel) -> None:
    """Replace every quantized layer by a plain one of the very same weights."""
    for name, module in list(base.decoder.named_modules()):
        if not hasattr(module.__dict__.get("_parameters", {}).get("weight"), "quant_state"):
            continue
        weight = bnb_functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        plain.weight = torch.nn.Parameter(weight.to(base.compute_dtype), requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(base.decoder.get_submodule(parent), child, plain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_in_training_gradients_are_right_and_equal_before_and_after_an_eval_pass(
    tmp_path: Path, family: str, quantization: str
) -> None:
    folder = write_tiny_model(tmp_path / family, family, hidden=128)
    base = load_base_model(folder, quantization=quantization, device="cpu", training=True)
    ids = some_ids(base)
    before = gradient_of_inputs(base, ids)
    with torch.no_grad():
        base.body(ids)
    after = gradient_of_inputs(base, ids)
    torch.testing.assert_close(after, before, rtol=0, atol=0)

    if quantization == "nf4":
        reference = load_base_model(folder, quantization="nf4", device="cpu", training=True)
        unpack_linear_layers(reference)
    else:
        reference = load_base_model(folder, quantization="bf16", device="cpu")
    right = gradient_of_inputs(reference, ids)
    assert float(torch.cosine_similarity(after, right, dim=0)) > 0.99
    assert float(after.norm() / right.norm()) == pytest.approx(1, abs=0.05)


def test_in_training_no_nf4_layer_may_repack_itself(folders: dict[str, Path]) -> None:
    base = load_base_model(folders["llama"], quantization="nf4", device="cpu", training=True)
    layers = [m for m in base.model.modules() if type(m).__name__ == "Linear4bit"]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_nf4_decodes_shapes_that_the_cpu_layout_cannot_hold(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "odd", "llama", hidden=80)  # 80 is no multiple of 64
    base = load_base_model(folder, quantization="nf4", device="cpu")
    with torch.no_grad():
        for _ in range(2):
            assert base.project(base.body(some_ids(base)).last_hidden_state).isfinite().all()


def test_only_the_language_model_of_a_multimodal_checkpoint_is_loaded(tmp_path: Path) -> None:
    vocabulary = write_tiny_tokenizer(tmp_path, "gemma3")
    config = Gemma3Config(
        text_config=tiny_config("gemma3", vocab=len(vocabulary)).to_dict(),
        vision_config={
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
        mm_tokens_per_image=4, boi_token_index=1, eoi_token_index=2, image_token_index=3,
    )  # fmt: skip
    whole = Gemma3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    base = load_base_model(tmp_path, quantization="fp32", device="cpu")
    ids = some_ids(base) + 4
    with torch.no_grad():
        logits = base.project(base.body(ids).last_hidden_state)
        torch.testing.assert_close(logits, whole(input_ids=ids).logits)
    assert not any("vision" in name for name, _ in base.model.named_parameters())


def test_auto_takes_bf16_only_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for capabilities, expected in (
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx2": True, "avx512_bf16": False}, "fp32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert choose_quantization("auto", CPU) == expected
    assert choose_quantization("auto", torch.device("cuda")) == "nf4"


@pytest.mark.parametrize("name", ["nf3", "NF4", ""])
def test_an_unknown_quantization_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ModelError, match="auto, nf4, int8, bf16, fp32"):
        choose_quantization(name, CPU)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "vulkan"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="Use auto"):
        choose_device(name)


def test_weights_that_cannot_fit_are_refused_before_they_are_read() -> None:
    with pytest.raises(ModelError, match=r"need about 2000000\.0 GB in bf16.*free"):
        check_memory(WeightCount(10**15, 0), "bf16", CPU)


def test_memory_is_counted_per_kind_of_weight(folders: dict[str, Path]) -> None:
    count = count_weights(folders["llama"])
    tensors = load_file(folders["llama"] / "model.safetensors")
    assert count.total == sum(tensor.numel() for tensor in tensors.values())
    norms = 5 * 64  # two a layer and the last
    assert count.unquantized == 2 * 320 * 64 + norms
    assert WeightCount(1000, 200).memory_bytes("nf4") == round(800 * 4.127 / 8 + 200 * 2)
    assert WeightCount(1000, 200).memory_bytes("fp32") == 4000


def test_sizes_are_readable() -> None:
    assert [readable_bytes(n) for n in (7, 1500, 2_000_000, 4.2e9)] == [
        "7 B",
        "2 kB",
        "2 MB",
        "4.2 GB",
    ]


def test_the_hash_follows_the_weights_and_not_the_place(
    tmp_path: Path, folders: dict[str, Path], own_cache: Path
) -> None:
    original = base_sha256(folders["llama"])
    copy = Path(shutil.copytree(folders["llama"], tmp_path / "copy"))
    assert base_sha256(copy) == original
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "9.9"}))
    assert base_sha256(copy) == original
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert base_sha256(copy) != original


def test_the_hash_follows_the_config(tmp_path: Path, folders: dict[str, Path]) -> None:
    copy = Path(shutil.copytree(folders["llama"], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert base_sha256(copy) != base_sha256(folders["llama"])


def test_a_hash_is_remembered_while_size_and_time_stay(tmp_path: Path, own_cache: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert known_sha256(file) == of_abc
    (record,) = (own_cache / "hashes").iterdir()
    record.write_text(record.read_text().replace(of_abc, "remembered"))
    assert known_sha256(file) == "remembered"
    file.write_bytes(b"abcd")
    assert known_sha256(file) != "remembered"
    record.write_text("not json")
    file.write_bytes(b"abc")
    assert known_sha256(file) == of_abc


def test_a_folder_that_lacks_a_part_is_refused_by_name(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    def broken(change: Any) -> Path:
        target = tmp_path / "broken"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folders["llama"], target)
        change(target)
        return target

    def truncate(folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])

    def pickled(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    def shard_lost(folder: Path) -> None:
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    for change, reason in (
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no \.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "not a safetensors"),
        (truncate, "bytes instead of"),
        (pickled, "pickled weights"),
        (shard_lost, "00001-of-00002.safetensors is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer of .* cannot"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "strange"}'),
            "not a model that this program knows",
        ),
    ):
        with pytest.raises(ModelError, match=reason):
            load_base_model(broken(change), device="cpu")
    with pytest.raises(ModelError, match="no folder"):
        check_model_folder(tmp_path / "nowhere")


def test_missing_weights_are_not_replaced_by_random_ones(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    copy = Path(shutil.copytree(folders["llama"], tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, such as model\.layers\.1\.mlp\.up"):
        load_base_model(copy, device="cpu")


def test_a_model_that_brings_its_own_code_is_not_run(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    copy = Path(shutil.copytree(folders["llama"], tmp_path / "copy"))
    marker = tmp_path / "code-was-run"
    (copy / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_base_model(copy, device="cpu")
    assert not marker.exists()


def test_weights_quantized_in_a_foreign_form_are_refused(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    copy = Path(shutil.copytree(folders["llama"], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"'gptq'.*unquantized safetensors"):
        load_base_model(copy, device="cpu")


def test_a_checkpoint_stored_in_nf4_stays_in_nf4(tmp_path: Path, folders: dict[str, Path]) -> None:
    base = load_base_model(folders["llama"], quantization="nf4", device="cpu", training=True)
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    again = load_base_model(tmp_path, quantization="auto", device="cpu", training=True)
    assert again.quantization == "nf4"
    ids = some_ids(base)
    with torch.no_grad():
        first = base.project(base.body(ids).last_hidden_state)
        second = again.project(again.body(ids).last_hidden_state)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("quantization", ON_CPU)
def test_loading_and_running_print_nothing(folders: dict[str, Path], quantization: str) -> None:
    program = (
        "import sys, torch; from pathlib import Path;"
        "from chatrlhf.models.base_model import load_base_model;"
        "base = load_base_model(Path(sys.argv[1]), quantization=sys.argv[2], device='cpu');"
        "base.body(torch.tensor([[1, 2, 3]]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(folders["llama"]), quantization]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ["auto", *ON_CPU])
def test_every_quantization_runs_on_cuda(
    folders: dict[str, Path], family: str, quantization: str
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    base = load_base_model(folders[family], quantization=quantization, device="auto")
    ids = some_ids(base).to(base.device)
    with torch.no_grad():
        logits = base.project(base.body(ids).last_hidden_state)
        expected = base.model(input_ids=ids).logits.float()
    assert base.device.type == "cuda"
    assert base.quantization == ("nf4" if quantization == "auto" else quantization)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02)


def test_bf16_is_fast_on_this_machine_only_if_the_processor_says_so() -> None:
    capabilities = torch.cpu.get_capabilities()
    expected = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    if not capabilities.get("bf16"):
        assert placement.has_fast_bf16(CPU) is expected
