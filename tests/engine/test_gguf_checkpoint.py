"""A GGUF file as a checkpoint: packed as it is, its answers are those of its dequantised self in transformers."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedModel

from rotary_batch.commands.packs import described_pack, find_pack
from rotary_batch.config import Settings
from rotary_batch.core import ExpertKey
from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.checkpoint import Checkpoint, open_checkpoint
from rotary_batch.engine.packs.encoding import slab_pieces
from rotary_batch.engine.packs.tensors import read_bytes
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.slabs import expert_layout
from tests.engine.gguf_files import write_gguf
from tests.engine.gguf_models import FAMILIES, gguf_keys, gguf_tensors, tiny_model
from tests.model.gguf_keys import smollm2_path

VOCABULARY = [*(f"<|{number}|>" for number in range(31)), *sorted(ByteLevel.alphabet()), "ab"]
TOKENIZER = {"model": "gpt2", "pre": "gpt-2", "tokens": VOCABULARY, "merges": ["a b"]}
TOKENIZER["token_type"] = [3] * 31 + [1] * 257
PROMPT = [3, 200, 17, 90, 41, 5, 250, 66, 12, 140, 33, 8]


def written(
    folder: Path, name: str, types: dict[str, str], **sizes: Any
) -> tuple[Path, PreTrainedModel, dict[str, np.ndarray]]:
    """A tiny model as `m.gguf`: matrices in the type that the last part of their names has in `types`."""
    family = FAMILIES[name]
    model = tiny_model(family, vocab_size=288, **sizes)
    model.save_pretrained(folder)
    tensors = {key: values.numpy() for key, values in gguf_tensors(folder, family.architecture, model.config)}
    chosen = {key: kind for key in tensors if (kind := types.get(key.removesuffix(".weight").rpartition(".")[2]))}
    keys = gguf_keys(family.architecture, model.config) | {
        f"tokenizer.ggml.{key}": value for key, value in TOKENIZER.items()
    }
    (folder / "model.safetensors").unlink()
    return write_gguf(folder / "m.gguf", family.architecture, keys, tensors, chosen), model, tensors


def dequantised(model: PreTrainedModel, types: dict[str, str]) -> PreTrainedModel:
    """The model with the weights that the blocks of the file stand for: rows are quantised alike in any order."""
    with torch.no_grad():
        for key, values in model.state_dict().items():
            kind = types.get(next((part for part in types if f"{part}." in key or key.endswith(part)), ""))
            if kind:
                number = gguf.GGMLQuantizationType[kind]
                rows = values.reshape(-1, values.shape[-1]).numpy()
                blocks = gguf.quants.quantize(rows, number)
                values.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, number)).view(values.shape))
    return model


# Not yet: what the decoder cannot compute.
UNREAD = {"granite", "llama with bias"}


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - UNREAD))
def test_a_plain_file_answers_as_its_checkpoint(tmp_path, name, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, model, _ = written(tmp_path, name, {})
    with closing(open_engine(path, numerics="exact")) as engine, torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0]
        assert (engine.logits(PROMPT) - expected).abs().max() <= 1e-4 * expected.abs().max()


QUANTISED = {
    "embed_tokens": ("token_embd", "Q8_0"),
    "q_proj": ("attn_q", "Q4_1"),
    "k_proj": ("attn_k", "Q5_0"),
    "o_proj": ("attn_output", "Q5_1"),
    "experts.gate_up_proj": ("ffn_gate_exps", "Q4_0"),
    "experts.down_proj": ("ffn_down_exps", "Q8_0"),
}


DELTA_QUANTISED = {
    "in_proj_qkv": ("attn_qkv", "Q8_0"),
    "in_proj_z": ("attn_gate", "Q4_0"),
    "in_proj_a": ("ssm_alpha", "Q8_0"),
    "mlp.gate": ("ffn_gate_inp", "Q8_0"),
    "experts.down_proj": ("ffn_down_exps", "Q4_1"),
}


@pytest.mark.parametrize(("name", "quantised"), [("mixtral", QUANTISED), ("qwen3_5_moe", DELTA_QUANTISED)])
def test_a_quantised_file_answers_as_its_dequantised_self(tmp_path, monkeypatch, name, quantised):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    types = dict(quantised.values())
    types |= {"ffn_up_exps": types["ffn_gate_exps"]} if "ffn_gate_exps" in types else {}
    path, model, _ = written(tmp_path, name, types)
    model = dequantised(model, {theirs: kind for theirs, (_, kind) in quantised.items()})
    with closing(open_engine(path, numerics="exact")) as engine, torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0]
        assert (engine.logits(PROMPT) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("is_split", [True, False])
def test_latent_attention_of_a_quantised_file_is_that_of_its_dequantised_self(tmp_path, monkeypatch, is_split):
    """kv_b in one tensor, as until April 2025, or in two."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    types = dict.fromkeys(("attn_k_b", "attn_v_b", "attn_kv_b"), "Q8_0") | {"attn_q_b": "Q4_1", "attn_kv_a_mqa": "Q5_0"}
    path, model, tensors = written(tmp_path, "deepseek_v3", types, qk_nope_head_dim=32)
    heads, state = model.config.num_attention_heads, model.state_dict()
    for layer in range(model.config.num_hidden_layers):
        k_b, v_b = (torch.from_numpy(tensors[f"blk.{layer}.attn_{part}.weight"]) for part in ("k_b", "v_b"))
        if not is_split:
            tensors[f"blk.{layer}.attn_kv_b.weight"] = torch.cat([k_b.mT, v_b], 1).flatten(0, 1).numpy()
            rows = rounded(tensors[f"blk.{layer}.attn_kv_b.weight"], "Q8_0")
        else:
            k_b, v_b = (torch.from_numpy(rounded(half.numpy(), "Q8_0")) for half in (k_b, v_b))
            rows = torch.cat([k_b.mT, v_b], 1).flatten(0, 1).numpy()
        stem = f"model.layers.{layer}.self_attn"
        state[f"{stem}.kv_b_proj.weight"].copy_(torch.from_numpy(rows).view(heads * 56, 32))
        for theirs, kind in (("q_b_proj", "Q4_1"), ("kv_a_proj_with_mqa", "Q5_0")):
            weight = state[f"{stem}.{theirs}.weight"]
            weight.copy_(torch.from_numpy(rounded(weight.numpy(), kind)))
    if not is_split:
        keys = gguf_keys("deepseek2", model.config) | {f"tokenizer.ggml.{key}": one for key, one in TOKENIZER.items()}
        kinds = {key: kind for key in tensors if (kind := types.get(key.removesuffix(".weight").rpartition(".")[2]))}
        write_gguf(path, "deepseek2", keys, tensors, kinds)  # with the halves besides, as some files have them
    with closing(open_engine(path, numerics="exact")) as engine, torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0]
        assert (engine.logits(PROMPT) - expected).abs().max() <= 1e-4 * expected.abs().max()


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """What the blocks of a type make of numbers."""
    number = gguf.GGMLQuantizationType[kind]
    return gguf.quants.dequantize(gguf.quants.quantize(values, number), number).reshape(values.shape)


def test_what_is_planned_before_packing_is_what_is_packed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, _, _ = written(tmp_path, "mixtral", dict(QUANTISED.values()))
    for model in (path, tmp_path):  # the file, or the folder that it is in
        settings = Settings(model=model)
        folder, planned = described_pack(settings)
        assert find_pack(settings) == folder
        made = Manifest.load(folder)
        assert made.name == planned.name == "m"
        for name in ("geometry", "experts", "layer_formats", "dense_formats", "slab_nbytes", "experts_nbytes"):
            assert getattr(made, name) == getattr(planned, name), name
    code = (  # every `index` asks for the pack: importing torch takes 2 s
        "import sys; from pathlib import Path; from rotary_batch.config import Settings\n"
        "from rotary_batch.commands.packs import find_pack\n"
        "print(find_pack(Settings(model=Path(sys.argv[1]))), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{folder} False\n", "")


def slab(checkpoint: Checkpoint, key: ExpertKey) -> dict[str, bytes]:
    """The parts of a packed slab."""
    stored = checkpoint.layer_formats[key.layer]
    layout = expert_layout(checkpoint.geometry, stored)
    data = b"".join(bytes(piece) for piece in slab_pieces(layout, stored, checkpoint.experts[key]))
    return {name: data[part.offset : part.offset + part.nbytes] for name, part in layout.parts.items()}


def test_gate_and_up_of_different_types_are_matrices_of_their_own(tmp_path):
    types = {"ffn_gate_exps": "Q4_0", "ffn_up_exps": "Q8_0", "ffn_down_exps": "Q5_1"}
    path, _, tensors = written(tmp_path, "mixtral", types)
    checkpoint = open_checkpoint(path)
    assert checkpoint.layer_formats[2] == {"gate": "ggml:Q4_0", "up": "ggml:Q8_0", "down": "ggml:Q5_1"}
    assert slab(checkpoint, ExpertKey(2, 3)) == {
        part: gguf.quants.quantize(
            tensors[f"blk.2.ffn_{part}_exps.weight"][3], gguf.GGMLQuantizationType[types[f"ffn_{part}_exps"]]
        ).tobytes()
        for part in ("gate", "up", "down")
    }


def test_old_files_with_a_tensor_for_each_expert_pack_as_new_ones_do(tmp_path):
    types = {"ffn_gate_exps": "Q4_0", "ffn_up_exps": "Q4_0", "ffn_down_exps": "Q8_0"}
    path, model, tensors = written(tmp_path, "mixtral", types)
    new = open_checkpoint(path)
    old_tensors: dict[str, np.ndarray] = {}
    for name, values in tensors.items():
        if "_exps" in name:
            old_tensors |= {name.replace("_exps", f".{expert}"): rows for expert, rows in enumerate(values)}
        else:
            old_tensors[name] = values
    old_types = {key: types[f"ffn_{key.split('ffn_')[1].split('.')[0]}_exps"] for key in old_tensors if ".ffn_" in key
                 and key.count(".") == 4}  # fmt: skip
    keys = gguf_keys("llama", model.config)
    old = open_checkpoint(write_gguf(tmp_path / "old.gguf", "llama", keys, old_tensors, old_types))
    assert (old.geometry, old.layer_formats) == (new.geometry, new.layer_formats)
    assert [slab(old, key) for key in old.experts] == [slab(new, key) for key in new.experts]


def test_what_does_not_fit_the_keys_is_named(tmp_path):
    path, model, tensors = written(tmp_path, "mixtral", {})
    keys = gguf_keys("llama", model.config)

    def opened(changed: dict[str, np.ndarray | None], types: dict[str, str] | None = None, **more: Any) -> None:
        kept = {name: values for name, values in (tensors | changed).items() if values is not None}
        open_checkpoint(write_gguf(path, "llama", keys | more, kept, types))

    with pytest.raises(ModelError, match=r'm\.gguf: tensor "blk\.1\.attn_q\.weight" is in none of its parts'):
        opened({"blk.1.attn_q.weight": None})
    with pytest.raises(
        ModelError, match=r'"blk\.3\.ffn_down_exps\.weight" has shape \[4, 64, 64\]; the keys say \[4, 64, 96\]'
    ):
        opened({"blk.3.ffn_down_exps.weight": np.zeros((4, 64, 64), np.float32)})
    with pytest.raises(
        ModelError, match=r'"blk\.0\.attn_sinks\.weight" is not one that a model of the family mixtral has'
    ):
        opened({"blk.0.attn_sinks.weight": np.zeros(4, np.float32)})
    with pytest.raises(ModelError, match=r"experts in several types \(F16, F32\)"):
        opened({"blk.0.ffn_up_exps.weight": tensors["blk.0.ffn_up_exps.weight"].astype(np.float16)})
    opened({}, {"blk.0.ffn_up_exps.weight": "Q8_0"})
    with pytest.raises(
        ModelError, match="its weights are quantised, and are kept as they are; leave out --experts int4"
    ):
        open_checkpoint(path).experts_format("int4")


def test_smollm2_packs_the_bytes_of_its_file():
    checkpoint = open_checkpoint(smollm2_path())
    assert checkpoint.name == "SmolLM2-135M-Instruct.Q4_1"
    assert set(checkpoint.dense_formats.values()) == {"ggml:Q4_1", "ggml:Q8_0"}
    assert (len(checkpoint.dense), len(checkpoint.experts), checkpoint.notes) == (2 + 30 * 6, 30, ())
    (gate, up), (down,) = (checkpoint.experts[ExpertKey(7, 0)][name].places for name in ("gate_up", "down"))
    assert slab(checkpoint, ExpertKey(7, 0)) == {
        "gate_up": bytes(read_bytes(gate) + read_bytes(up)),
        "down": bytes(read_bytes(down)),
    }
