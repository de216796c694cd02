"""Models that llama.cpp's converter wrote: their configuration and their tensors are those of the checkpoint."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import quantize
from safetensors.torch import load_file
from transformers import AutoConfig, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from rotary_batch.engine.packs.gguf import GgufFile, read_gguf
from rotary_batch.engine.packs.gguf_config import config_from_gguf
from rotary_batch.engine.packs.gguf_names import Census, Change, Named, census
from rotary_batch.engine.packs.gguf_order import halves, join_kv_b, undo_columns, undo_rows
from rotary_batch.engine.packs.tensors import TensorPlace, pieces
from rotary_batch.errors import ModelError
from rotary_batch.model.families import family_of, geometry_of
from rotary_batch.model.rope_scaling import frequencies
from rotary_batch.model.tables import Table
from tests.engine.gguf_files import write_gguf
from tests.engine.gguf_models import FAMILIES, convert, tiny_model
from tests.model.gguf_keys import smollm2_path

# What a GGUF file does not say, and what has no part in answers.
UNSAID = {
    "pad_token_id",
    "initializer_range",
    "dtype",
    "architectures",
    "transformers_version",
    "use_cache",
    "pretraining_tp",
}
UNSAID |= {"attention_dropout", "output_router_logits", "router_aux_loss_coef", "num_mtp_layers", "eod_token_id"}
UNSAID |= {"sep_token_id", "eos_token_id"}


def read_model(path: Path) -> tuple[GgufFile, dict[str, Any], Census]:
    file = read_gguf(path)
    config = config_from_gguf(file.keys, file.tensors)
    return file, config, census(str(file.keys["general.architecture"]), file.tensors, config)


@pytest.fixture(scope="module", params=FAMILIES)
def converted(request, tmp_path_factory):
    family = FAMILIES[request.param]
    model = tiny_model(family)
    folder = tmp_path_factory.mktemp("model")
    convert(model, folder, family.architecture)
    return family, model.config, folder


def test_the_configuration_is_that_of_the_checkpoint(converted):
    _, expected, folder = converted
    _, found, _ = read_model(folder / "model.gguf")
    rebuilt = AutoConfig.for_model(**found).to_dict()
    assert {name: value for name, value in rebuilt.items() if name in expected.to_dict() and name not in UNSAID} == {
        name: value for name, value in expected.to_dict().items() if name not in UNSAID
    }
    assert found["eos_token_id"] == [2, 7]


EXPERTS = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}
OURS = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "moe_norm",
    **{f"self_attn.{part}_proj": part for part in ("q", "k", "v", "o", "kv_b", "q_a", "q_b")},
    "self_attn.kv_a_proj_with_mqa": "kv_a",
    "self_attn.q_a_layernorm": "q_a_norm",
    "self_attn.kv_a_layernorm": "kv_a_norm",
    **{f"self_attn.{part}_norm": f"{part}_norm" for part in ("q", "k")},
    "self_attn.query_layernorm": "q_norm",
    "self_attn.key_layernorm": "k_norm",
    "self_attn.sinks": "sinks",
    **{f"mlp.{part}_proj": f"ffn.{part}" for part in ("gate", "up", "down")},
    **dict.fromkeys(("mlp.gate", "mlp.gate.wg", "mlp.router", "block_sparse_moe.gate"), "router"),
    "block_sparse_moe.router.layer": "router",
    "mlp.gate.e_score_correction_bias": "router.choice_bias",
    "mlp.moe_statics.e_score_correction_bias": "router.choice_bias",
    "block_sparse_moe.e_score_correction_bias": "router.choice_bias",
    **{f"mlp.{of}.{part}_proj": f"shared.{part}" for part in ("gate", "up", "down")
       for of in ("shared_expert", "shared_experts", "shared_mlp")},
    "mlp.shared_expert_gate": "shared.router",
    "shared_mlp.output_linear": "shared.down",
    "block_sparse_moe.output_linear": "experts.down",
    "mlp.experts.down_proj": "experts.down",
    **{f"linear_attn.{theirs}": f"delta.{ours}" for theirs, ours in {"in_proj_qkv": "qkv", "in_proj_z": "z",
       "in_proj_a": "a", "in_proj_b": "b", "in_proj_ba": "ba", "conv1d": "conv", "A_log": "A_log", "dt_bias": "dt_bias",
       "norm": "norm", "out_proj": "out"}.items()},
}  # fmt: skip
TOP = {"model.embed_tokens.weight": "embed", "model.norm.weight": "norm", "lm_head.weight": "head"}


def by_our_names(folder: Path, config: Any) -> dict[str, torch.Tensor]:
    """The tensors of a saved checkpoint by our names, experts stacked."""
    found: dict[str, torch.Tensor] = {}
    stacks: dict[str, dict[int, torch.Tensor]] = {}
    for name, values in load_file(folder / "model.safetensors").items():
        layer = re.fullmatch(r"model\.(layers\.\d+)\.(.+?)(\.weight|\.bias)?", name)
        if layer is None:
            found[TOP.get(name, name.replace("model.", "").replace("lm_head", "head"))] = values
        elif expert := re.fullmatch(r".+\.experts\.(\d+)\.(.+)", layer[2]):
            stacks.setdefault(f"{layer[1]}.experts.{EXPERTS[expert[2]]}", {})[int(expert[1])] = values
        else:
            found |= {f"{layer[1]}.{part}": half for part, half in _parts(layer[2], layer[3], values, config)}
    return found | {name: torch.stack([rows[number] for number in range(len(rows))]) for name, rows in stacks.items()}


def _parts(name: str, suffix: str | None, values: torch.Tensor, config: Any) -> list[tuple[str, torch.Tensor]]:
    if config.model_type == "gpt_oss" and "experts" in name:
        bias = ".bias" if name.endswith("_bias") else ""
        values = values if bias else values.transpose(1, 2)
        if "down" in name:
            return [(f"experts.down{bias}", values)]
        return [(f"experts.gate{bias}", values[:, ::2]), (f"experts.up{bias}", values[:, 1::2])]
    if name.endswith(("input_linear", "mlp.experts.gate_up_proj")):
        of = "shared" if name.startswith("shared") else "experts"
        return list(zip((f"{of}.gate", f"{of}.up"), values.chunk(2, -2), strict=True))
    if name.endswith("in_proj_qkvz"):
        keys, turns = config.linear_num_key_heads, config.linear_num_value_heads // config.linear_num_key_heads
        heads = values.reshape(keys, -1, values.shape[1])
        key_dim, width = config.linear_key_head_dim, turns * config.linear_value_head_dim
        q, k, v, z = (part.reshape(-1, values.shape[1]) for part in heads.split([key_dim, key_dim, width, width], 1))
        return [("delta.qkv", torch.cat([q, k, v])), ("delta.z", z)]
    if name.endswith("conv1d"):
        values = values[:, 0]
    if name.endswith("moe_statics.e_score_correction_bias"):
        values = values[0]
    return [(OURS[name] + (".bias" if suffix == ".bias" else ""), values)]


def original(named: Named) -> np.ndarray:
    """The numbers of a tensor of float32 with its changes undone."""
    data = b"".join(bytes(piece) for piece in pieces(named.place))
    values = np.frombuffer(data, np.float32).reshape(named.place.shape)
    for change in reversed(named.changes):
        if change is Change.ROWS_SWAPPED:
            values = undo_rows(values, named.swap)
        elif change is Change.COLUMNS_SWAPPED:
            values = undo_columns(values, named.swap)
        elif change is Change.PLUS_ONE:
            values = values - 1
        elif change is Change.MINUS_EXP:
            values = np.log(-values)
    return values


def test_every_tensor_is_found_by_our_name_and_every_change_can_be_undone(converted):
    family, config, folder = converted
    file, _, found = read_model(folder / "model.gguf")
    expected = {name: values.numpy() for name, values in by_our_names(folder, config).items()}
    values = {name: original(named) for name, named in found.tensors.items()}
    for name in [name for name in values if name.endswith(".k_b")]:
        stem = name.removesuffix("k_b")
        values[f"{stem}kv_b"] = join_kv_b(values.pop(f"{stem}k_b"), values.pop(f"{stem}v_b"))
    assert values.keys() == expected.keys()
    for name, numbers in expected.items():
        assert values[name].shape == numbers.shape, name
        # What was added or exponentiated in 32 bits comes back within their precision; all else is moved.
        changed = {Change.PLUS_ONE, Change.MINUS_EXP} & set(getattr(found.tensors.get(name), "changes", ()))
        np.testing.assert_allclose(values[name], numbers, rtol=0, atol=3e-7 if changed else 0, err_msg=name)
    assert found.notes == ()
    assert len(found.tensors) == len(file.tensors)


def keys_of(architecture: str, **keys: Any) -> dict[str, Any]:
    """The least that a model says."""
    least = {"block_count": 2, "context_length": 64, "embedding_length": 64, "feed_forward_length": 96}
    least |= {"attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5}
    return {"general.architecture": architecture} | {
        f"{architecture}.{name}": value
        for name, value in (least | {n.replace("__", "."): v for n, v in keys.items()}).items()
    }


def places(*names: str, shape: tuple[int, ...] = (96, 64), path: Path = Path("m.gguf")) -> dict[str, TensorPlace]:
    nbytes = math.prod(shape) * 4
    return {
        name: TensorPlace(path, number * nbytes, nbytes, "F32", shape)
        for number, name in enumerate(("token_embd.weight", *names))
    }


def config_of(architecture: str, *names: str, **keys: Any) -> dict[str, Any]:
    return config_from_gguf(keys_of(architecture, **keys), places(*names))


def test_an_unknown_architecture_is_refused_by_its_name():
    with pytest.raises(ModelError, match=r'm\.gguf: architecture "gemma3"; those that are read: llama, qwen2, '):
        config_of("gemma3")


def test_an_unknown_tensor_is_refused_by_its_name():
    config = config_of("llama")
    for name in (
        "blk.0.attn_x.weight",
        "blk.2.attn_q.weight",
        "blk.0.attn_q",
        "blk.0.ffn_up_exps.scale",
        "x",
        "blk.0.",
    ):
        with pytest.raises(
            ModelError, match=rf'm\.gguf: tensor "{name}" is none of a model of architecture llama with 2 la'
        ):
            census("llama", places(name), config)


def test_two_tensors_cannot_be_one_of_ours():
    with pytest.raises(
        ModelError, match=r'tensor "blk\.0\.post_attention_norm\.weight" is a second layers\.0\.moe_norm'
    ):
        census("llama", places("blk.0.ffn_norm.weight", "blk.0.post_attention_norm.weight"), config_of("llama"))


def test_layers_that_predict_further_tokens_and_vision_are_skipped_with_a_note():
    keys = {"block_count": 3, "nextn_predict_layers": 1, "expert_count": 4, "expert_used_count": 2}
    config = config_of("glm4moe", **keys, expert_feed_forward_length=32, expert_shared_count=1)
    assert config["num_hidden_layers"] == 2
    names = (
        "blk.1.attn_q.weight",
        "blk.2.attn_q.weight",
        "blk.2.nextn.eh_proj.weight",
        "v.blk.0.ln1.weight",
        "mm.0.bias",
    )
    found = census("glm4moe", places(*names), config)
    assert list(found.tensors) == ["embed", "layers.1.q"]
    assert found.notes == (
        "skipped 2 tensors of layers that predict further tokens",
        "skipped 2 tensors of the vision or audio part",
    )


def test_old_mixtral_files_have_a_tensor_for_each_expert():
    config = config_of("llama", expert_count=3, expert_used_count=2)
    assert (config["model_type"], config["num_local_experts"], config["intermediate_size"]) == ("mixtral", 3, 96)
    names = [
        f"blk.{layer}.ffn_{part}.{expert}.weight" for layer in (0, 1) for part in ("gate", "down") for expert in (0, 2)
    ]
    assert list(census("llama", places(*names), config).tensors)[1:] == [
        f"layers.{layer}.experts.{expert}.{part}" for layer in (0, 1) for part in ("gate", "down") for expert in (0, 2)
    ]


def test_a_fused_qkv_is_three_runs_of_rows():
    keys = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32, "expert_shared_count": 1}
    config = config_of("bailingmoe2", "blk.0.attn_qkv.weight", "blk.0.exp_probs_b.bias", **keys)
    assert (config["architectures"], config["n_group"], config["num_experts"]) == (["BailingMoeV2ForCausalLM"], 8, 4)
    tensor = {"blk.0.attn_qkv.weight": TensorPlace(Path("m"), 1000, 128 * 64 * 4, "F32", (128, 64))}
    assert census("bailingmoe2", tensor, config).tensors == {
        "layers.0.q": Named("blk.0.attn_qkv.weight", TensorPlace(Path("m"), 1000, 64 * 256, "F32", (64, 64))),
        "layers.0.k": Named(
            "blk.0.attn_qkv.weight", TensorPlace(Path("m"), 1000 + 64 * 256, 32 * 256, "F32", (32, 64))
        ),
        "layers.0.v": Named(
            "blk.0.attn_qkv.weight", TensorPlace(Path("m"), 1000 + 96 * 256, 32 * 256, "F32", (32, 64))
        ),
    }
    with pytest.raises(ModelError, match=r"attn_qkv of layers\.0 has 96 rows; its heads make 128"):
        census("bailingmoe2", places("blk.0.attn_qkv.weight"), config)


def test_fused_experts_have_a_name():
    config = config_of("qwen3moe", expert_count=4, expert_used_count=2)
    assert config["moe_intermediate_size"] == 48  # of files without the key: the width of all that are used
    assert "layers.1.experts.gate_up" in census("qwen3moe", places("blk.1.ffn_gate_up_exps.weight"), config).tensors


def test_packed_rows_are_brought_back_as_they_are():
    rng = np.random.default_rng(0)
    rows = rng.random((64, 64), np.float32)  # 4 heads of 16
    swap = halves(4, 16)
    stored = rows.reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    packed = quantize(stored, GGMLQuantizationType.Q4_1)
    assert np.array_equal(undo_rows(packed, swap), quantize(rows, GGMLQuantizationType.Q4_1))
    with pytest.raises(ModelError, match="48 rows or columns, not 0 and then 64 in heads"):
        undo_rows(packed[:48], swap)


def test_divisors_of_rope_give_the_frequencies_of_llama_3(tmp_path):
    llama3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    expected = LlamaConfig(head_dim=64, rope_parameters=llama3 | {"original_max_position_embeddings": 128})
    wanted = LlamaRotaryEmbedding(expected).inv_freq
    plain = 1 / 5e5 ** (torch.arange(0, 64, 2) / 64)
    tensors = {"token_embd.weight": np.zeros((96, 64), np.float32), "rope_freqs.weight": (plain / wanted).numpy()}
    keys = {name.removeprefix("llama."): value for name, value in keys_of("llama").items() if name.startswith("llama.")}
    write_gguf(tmp_path / "m.gguf", "llama", keys | {"attention.key_length": 64, "rope.freq_base": 5e5}, tensors)
    _, config, found = read_model(tmp_path / "m.gguf")
    table = Table(config, "m.gguf", "")
    geometry = geometry_of(table, family_of(table))
    turning = frequencies(geometry.rope_theta, geometry.num_rotary, geometry.rope_scaling)
    assert turning.angles == pytest.approx(wanted.tolist(), rel=1e-6)
    assert turning.factor == 1.0
    assert (list(found.tensors), found.notes) == (["embed"], ())


def test_long_rope_of_phi_has_the_factors_and_the_scale_of_the_checkpoint(tmp_path):
    tensors = {"token_embd.weight": np.zeros((96, 64), np.float32)}
    for name, value in (("short", 1.5), ("long", 3.0)):
        tensors[f"rope_factors_{name}.weight"] = np.full(8, value, np.float32)
    keys = {
        name.removeprefix("phimoe."): value for name, value in keys_of("phimoe").items() if name.startswith("phimoe.")
    }
    keys |= {"expert_count": 4, "expert_used_count": 2, "rope.scaling.original_context_length": 16}
    write_gguf(tmp_path / "m.gguf", "phimoe", keys | {"rope.scaling.attn_factor": 1.19}, tensors)
    assert read_model(tmp_path / "m.gguf")[1]["rope_parameters"] == {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.5] * 8,
        "long_factor": [3.0] * 8,
        "original_max_position_embeddings": 16,
        "short_mscale": 1.243163121016122,
        "long_mscale": 1.243163121016122,
    }


def test_files_of_deepseek_from_before_latent_keys():
    keys = {"expert_count": 256, "expert_used_count": 8, "expert_feed_forward_length": 32, "expert_shared_count": 1}
    keys |= {"attention__key_length": 192, "attention__value_length": 128, "rope__dimension_count": 64}
    keys |= {"attention__kv_lora_rank": 512, "attention__q_lora_rank": 1536}
    config = config_of("deepseek2", "blk.1.exp_probs_b.bias", "blk.0.attn_kv_b.weight", **keys)
    sizes = ("model_type", "qk_nope_head_dim", "v_head_dim", "n_group", "topk_group", "num_key_value_heads")
    assert [config[name] for name in sizes] == ["deepseek_v3", 128, 128, 8, 4, 4]
    lite = config_of("deepseek2", "blk.0.attn_q.weight", **keys | {"expert_count": 64})
    assert [lite[name] for name in ("model_type", "q_lora_rank", "n_group", "topk_method")] == [
        "deepseek_v2",
        None,
        1,
        "greedy",
    ]


WRONG = {
    "no embedding": ("llama", {}, {}, r'tensor "token_embd\.weight" is missing or no matrix'),
    "no sizes": ("llama", {"embedding_length": None}, None, r"llama\.embedding_length is missing"),
    "no heads": ("llama", {"attention.head_count": 0}, None, r'"llama\.attention\.head_count" is 0, with 64 numbers'),
    "unequal layers": ("llama", {"attention.head_count_kv": [2, 1]}, None, r"head_count_kv\" differs from layer to layer"),
    "many layers": ("llama", {"block_count": 2**20}, None, r'block_count" is 1,048,576'),
    "only predicting": ("glm4moe", {"nextn_predict_layers": 2}, None, r'block_count" is 2, 2 of them to predict'),
    "a text": ("llama", {"block_count": "two"}, None, r'llama\.block_count is "two", not a whole number'),
    "scores": ("qwen3moe", {"expert_gating_func": 2}, None, r"expert_gating_func\" is 2; a model of this .* 1 \(softmax\)"),
    "a factor": ("qwen3moe", {"expert_weights_scale": 2.5}, None, r'expert_weights_scale" is not 1'),
    "no positions": ("granite", {"rope.scaling.finetuned": False}, None, r"without positions"),
    "scaling": ("llama", {"rope.scaling.type": "magic"}, None, r'rope\.scaling\.type" is "magic", which is not known'),
    "no factors": ("llama", {"rope.scaling.type": "longrope"}, None, r"longrope, but its factors are not among the tensors"),
    "not finite": ("llama", {"rope.freq_base": math.inf}, None, r"rope\.freq_base is Infinity, not a finite number"),
    "value heads": ("qwen3next", {"expert_count": 4, "expert_used_count": 1, "ssm.time_step_rank": 3, "ssm.inner_size": 48,
                                  "ssm.group_count": 2}, None, r"is 3 heads for 2 key heads"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_keys_that_make_no_model(case):
    architecture, keys, tensors, message = WRONG[case]
    given = keys_of(architecture, **keys)
    given = {name: value for name, value in given.items() if value is not None}
    some = {"x.weight": places()["token_embd.weight"]} if tensors == {} else places()
    with pytest.raises(ModelError, match=r"(?s)m\.gguf: .*" + message):
        config_from_gguf(given, some)


def test_smollm2():
    file, config, found = read_model(smollm2_path())
    assert (len(file.tensors), len(found.tensors), found.notes) == (272, 272, ())
    assert config == {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "intermediate_size": 1536,
        "vocab_size": 49_152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "attention_bias": False,
        "mlp_bias": False,
        "eos_token_id": [2],
        "bos_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    }
    assert found.tensors["layers.29.k"].swap == halves(3, 64)
    parts = ("attention_norm", "q", "k", "v", "o", "moe_norm", "ffn.gate", "ffn.up", "ffn.down")
    assert set(found.tensors) == {"embed", "norm"} | {f"layers.{layer}.{part}" for layer in range(30) for part in parts}
