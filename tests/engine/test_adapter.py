"""Adapters that PEFT saved, merged when a model is packed: the weights are those that PEFT itself makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.adapter import CONFIG_NAME, TENSORS_NAME, Adapted, open_model
from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.packs.recipes import stored_parts
from rotary_batch.engine.packs.tensors import Source
from rotary_batch.engine.self_check import self_check
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import Manifest
from tests.engine.gguf_models import FAMILIES, tiny_model
from tests.engine.test_gguf_checkpoint import PROMPT, rounded, written

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning"
)  # of PEFT with newer transformers
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ATTENTION = LINEAR[:4]


def saved_adapter(model: PreTrainedModel, folder: Path, **options: Any) -> PreTrainedModel:
    """A random adapter of a model in a folder, and the model with the adapter merged."""
    torch.manual_seed(5)
    wanted = {"r": 4, "lora_alpha": 6, "target_modules": LINEAR, "init_lora_weights": False} | options
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **wanted))
    adapted.save_pretrained(folder)
    config = json.loads((folder / CONFIG_NAME).read_text()) | {"init_lora_weights": True}
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    return adapted.merge_and_unload()


def plain(folder: Path, name: str, **sizes: Any) -> PreTrainedModel:
    """A tiny model as a Hugging Face checkpoint."""
    model = tiny_model(FAMILIES[name], vocab_size=288, **sizes)
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tensors(model: Path | Adapted) -> dict[str, torch.Tensor]:
    """All matrices that a pack would hold of a plain model."""
    checkpoint = open_model(model)
    sources: dict[str, Source] = dict(checkpoint.dense)
    sources |= {f"{key}.{name}": one for key, expert in checkpoint.experts.items() for name, one in expert.items()}
    return {name: stored_parts(source)[""].float() for name, source in sources.items()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {}),
        ("qwen3", {"use_rslora": True}),
        ("mixtral", {"target_modules": ATTENTION}),
        ("deepseek_v3", {"target_modules": ["q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]}),
        ("qwen2", {"target_modules": ["down_proj", "up_proj"], "r": 1}),
    ],
)
def test_every_matrix_is_what_peft_merges(tmp_path, name, options):
    merged = saved_adapter(plain(tmp_path / "base", name), tmp_path / "adapter", **options)
    merged.save_pretrained(tmp_path / "merged")
    expected = tensors(tmp_path / "merged")
    found = tensors(Adapted(tmp_path / "base", tmp_path / "adapter"))
    assert found.keys() == expected.keys()
    for tensor_name, values in expected.items():
        assert torch.allclose(found[tensor_name], values, rtol=0, atol=1e-6 * float(values.abs().max())), tensor_name
    below = tensors(tmp_path / "base")
    assert any(not torch.equal(below[tensor_name], values) for tensor_name, values in found.items())


def test_a_quantised_file_with_an_adapter_answers_as_the_merged_model(tmp_path, monkeypatch):
    """What the adapter changes becomes bf16; the rest keeps its blocks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, model, _ = written(tmp_path, "llama", {"token_embd": "Q8_0"})
    merged = saved_adapter(model, tmp_path / "adapter")
    adapted = Adapted(path, tmp_path / "adapter")
    manifest = pack(adapted, tmp_path / "pack", check=self_check)
    assert manifest.name == "m+adapter"
    assert manifest.dense_stored("embed") == "ggml:Q8_0"
    engine = open_engine(tmp_path / "pack", numerics="exact")
    try:
        with torch.no_grad():
            weight = merged.get_input_embeddings().weight
            weight.copy_(torch.from_numpy(rounded(weight.numpy(), "Q8_0")))
            expected = merged(torch.tensor([PROMPT])).logits[0]
        assert (engine.logits(PROMPT) - expected).abs().max() <= 1e-4 * expected.abs().max()
    finally:
        engine.close()
    assert pack(adapted, tmp_path / "pack") == manifest
    with pytest.raises(ModelError, match="already holds a pack of another checkpoint"):
        pack(path, tmp_path / "pack")


def test_what_keeps_its_blocks_is_read_again_when_the_rest_was_quantised_here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, model, _ = written(tmp_path, "llama", {"token_embd": "Q8_0"})
    saved_adapter(model, tmp_path / "adapter")
    made = pack(Adapted(path, tmp_path / "adapter"), tmp_path / "pack", experts="int8", dense="int8")
    assert Manifest.load(tmp_path / "pack") == made
    assert {made.dense_stored(name) for name in ("embed", "layers.0.q")} == {"ggml:Q8_0", "int8"}
    engines = [open_engine(tmp_path / "pack", numerics=numerics) for numerics in ("exact", "fast")]
    try:
        exact, fast = (engine.logits(PROMPT) for engine in engines)
        assert (exact - fast).abs().max() <= 0.2 * exact.abs().max()  # of a random model in 8 bits: 0.1
    finally:
        for engine in engines:
            engine.close()


def _changed(folder: Path, **values: Any) -> Path:
    changed = folder.with_name("changed")
    shutil.copytree(folder, changed)
    config = json.loads((changed / CONFIG_NAME).read_text()) | values
    (changed / CONFIG_NAME).write_text(json.dumps(config))
    return changed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is .IA3., not LORA"),
        ({"use_dora": True}, "use_dora is true; only plain LoRA"),
        ({"bias": "all"}, "bias is .all.; only plain LoRA"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern is .*; only plain LoRA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is .pissa., which changes the weights below it"),
        ({"lora_alpha": "much"}, "lora_alpha"),
        ({"lora_alpha": -1}, "lora_alpha"),
    ],
)
def test_an_adapter_that_is_merged_by_another_formula_is_refused(tmp_path, values, message):
    saved_adapter(plain(tmp_path / "base", "llama"), tmp_path / "adapter")
    with pytest.raises(ModelError, match=message) as raised:
        open_model(Adapted(tmp_path / "base", _changed(tmp_path / "adapter", **values)))
    assert str(tmp_path / "changed" / CONFIG_NAME) in str(raised.value)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    saved_adapter(plain(tmp_path / "larger", "llama", hidden_size=96), tmp_path / "adapter", target_modules=["q_proj"])
    plain(tmp_path / "base", "llama")
    with pytest.raises(ModelError, match=r"q_proj. is for a matrix \[\d+, 96\]; that of base is \[\d+, 64\]"):
        open_model(Adapted(tmp_path / "base", tmp_path / "adapter"))


def test_a_module_that_the_model_lacks_is_named(tmp_path):
    saved_adapter(plain(tmp_path / "base", "llama"), tmp_path / "adapter", target_modules=["gate_proj"])
    plain(tmp_path / "moe", "mixtral")
    with pytest.raises(ModelError, match=r"module .model.layers.0.mlp.\w+_proj. is not one that can be changed in moe"):
        open_model(Adapted(tmp_path / "moe", tmp_path / "adapter"))


def test_a_folder_without_tensors_is_named(tmp_path):
    saved_adapter(plain(tmp_path / "base", "llama"), tmp_path / "adapter")
    (tmp_path / "adapter" / TENSORS_NAME).unlink()
    with pytest.raises(ModelError, match=TENSORS_NAME):
        open_model(Adapted(tmp_path / "base", tmp_path / "adapter"))
