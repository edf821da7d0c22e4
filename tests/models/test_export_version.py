"""Exported versions are opened by peft, by transformers and by gguf, and answer as they do here."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from serving import RANK, random_lora, write_random_version
from tiny_model import FAMILIES, write_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.errors import ConflictError, ModelError, VersionError
from chatrlhf.models.adapter_files import AdapterShape, Component, write_version
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.export_gguf import export_gguf
from chatrlhf.models.export_version import export_adapter, export_merged
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.models.weights import read_config

ASKED = (ChatMessage("user", "tell me about the cat"),)


@pytest.fixture(scope="module", params=FAMILIES)
def made(tmp_path_factory, request):
    """A base folder, a version's folder, a prompt, and the logits that we give it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = write_tiny_model(folder / "model", request.param)
    base = load_base_model(model, quantization="fp32")
    bank = LoraBank(base.model, RANK, float(RANK))
    version = write_random_version(base, bank, folder, "v3", seed=4)
    bank.add("ours")
    bank.load_state("ours", random_lora(bank, 4))
    tokens = torch.tensor([base.chat_format.encode_prompt(ASKED)])
    with torch.no_grad():
        hidden = Policy(base, bank, "ours").hidden_states(tokens)
        logits = base.model.get_output_embeddings()(hidden)
        plain = base.model.get_output_embeddings()(Policy(base, bank, None).hidden_states(tokens))
    assert float((logits - plain).abs().max()) > 0.05  # the adapter does something
    return model, version, tokens, logits


def test_the_adapter_is_loaded_by_peft(made, tmp_path):
    model, version, tokens, logits = made
    files = export_adapter(version, tmp_path / "out" / "v3")
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    peft = PeftModel.from_pretrained(plain, tmp_path / "out" / "v3").eval()
    with torch.no_grad():
        found = peft(tokens).logits
    torch.testing.assert_close(soft(found), soft(logits), atol=2e-4, rtol=0)


def test_the_merged_model_is_loaded_by_transformers(made, tmp_path):
    model, version, tokens, logits = made
    told = []
    export_merged(
        version, model, tmp_path / "merged", lambda *said: told.append(said), dtype=torch.float32
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    with torch.no_grad():
        found = merged(tokens).logits
    torch.testing.assert_close(soft(found), soft(logits), atol=2e-4, rtol=0)
    ours, theirs = (AutoTokenizer.from_pretrained(one) for one in (model, tmp_path / "merged"))
    assert theirs("tell me").input_ids == ours("tell me").input_ids
    assert theirs.chat_template == ours.chat_template
    assert told[-1] == ("Written", 1.0)


def soft(logits):
    return logits.float().log_softmax(-1)


def test_nothing_is_overwritten_and_nothing_half_is_left(made, tmp_path):
    model, version, *_ = made
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(ConflictError, match="exists already"):
        export_adapter(version, tmp_path / "full")
    (tmp_path / "file.gguf").write_text("keep")
    with pytest.raises(ConflictError, match="exists already"):
        export_gguf(version, model, tmp_path / "file.gguf")
    with pytest.raises(VersionError):
        export_adapter(tmp_path / "nowhere", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.gguf", "full"]


def test_the_gguf_adapter_holds_every_tensor_under_its_name_there(made, tmp_path):
    import gguf

    model, version, *_ = made
    if read_config(model).model_type == "phi3":  # it has one layer for queries, keys and values
        with pytest.raises(ModelError, match="not for 'phi3'"):
            export_gguf(version, model, tmp_path / "v3.gguf")
        return
    path = export_gguf(version, model, tmp_path / "v3.gguf")
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    assert fields["adapter.lora.alpha"] == float(RANK)
    from safetensors.torch import load_file

    ours = load_file(version / "adapter_model.safetensors")
    assert len(reader.tensors) == len(ours)
    names = {tensor.name for tensor in reader.tensors}
    assert {"blk.0.attn_q.weight.lora_a", "blk.1.ffn_down.weight.lora_b"} <= names
    found = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.weight"
    for letter in "AB":
        name = f"blk.1.ffn_down.weight.lora_{letter.lower()}"
        torch.testing.assert_close(found[name], ours[key.format(letter)].float())


def test_an_unknown_architecture_is_told(made, tmp_path, monkeypatch):
    model, version, *_ = made
    monkeypatch.setattr("chatrlhf.models.export_gguf._ARCHITECTURES", {})
    with pytest.raises(ModelError, match="not for"):
        export_gguf(version, model, tmp_path / "v3.gguf")
    assert not (tmp_path / "v3.gguf").exists()


@pytest.mark.slow
def test_llama_cpp_computes_the_same_logits_with_the_gguf_adapter(tmp_path):
    pytest.importorskip("llama_cpp", reason="pip install 'chatrlhf[bench]'")
    import numpy as np
    from llama_cpp import Llama
    from tiny_gguf import write_tiny_gguf

    model = write_tiny_model(tmp_path / "model", "qwen3")
    base = load_base_model(model, quantization="fp32")
    bank = LoraBank(base.model, RANK, float(2 * RANK))  # so that the scale is not one
    bank.add("ours")
    bank.load_state("ours", random_lora(bank, 4))
    write_version(
        tmp_path,
        "v3",
        {"policy": Component(bank.state_of("ours"))},
        AdapterShape(RANK, float(2 * RANK), bank.target_modules),
        {"base": {}},
    )
    tokens = base.chat_format.encode_prompt(ASKED)
    with torch.no_grad():
        hidden = Policy(base, bank, "ours").hidden_states(torch.tensor([tokens]))
        expected = base.model.get_output_embeddings()(hidden)[0].float()
    whole = write_tiny_gguf(tmp_path / "base.gguf", model)
    adapter = export_gguf(tmp_path / "v3", model, tmp_path / "v3.gguf")
    found = {}
    for name, lora in (("plain", None), ("adapted", str(adapter))):
        llama = Llama(
            str(whole), lora_path=lora, n_ctx=128, logits_all=True, n_threads=1, verbose=False
        )
        llama.eval(tokens)
        found[name] = torch.tensor(np.array(llama.scores[: len(tokens)]))
        llama.close()
    assert float((soft(found["plain"]) - soft(expected)).abs().max()) > 0.05
    torch.testing.assert_close(soft(found["adapted"]), soft(expected), atol=2e-2, rtol=0)
