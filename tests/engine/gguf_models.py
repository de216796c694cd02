"""Tiny random models of transformers, and what llama.cpp's converter makes of them.

The names of tensors come from the table of the `gguf` package; keys and changes are those of `conversion/*.py` of
llama.cpp, written anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from tests.engine.gguf_files import write_gguf

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": [2],
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
DELTA = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "head_dim": 32,
}
LATENT = {
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
MOE = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32}


class Family(NamedTuple):
    architecture: str
    model_type: str
    sizes: dict[str, Any]


FAMILIES = {
    "llama": Family("llama", "llama", {"head_dim": 32, "tie_word_embeddings": True}),
    "llama with bias": Family("llama", "llama", {"head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    "mixtral": Family("llama", "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}),
    "qwen2": Family("qwen2", "qwen2", {"rope_parameters": {**YARN, "beta_fast": 16.0, "beta_slow": 2.0}}),
    "qwen3": Family("qwen3", "qwen3", {"head_dim": 32}),
    "qwen2_moe": Family("qwen2moe", "qwen2_moe", {**MOE, "shared_expert_intermediate_size": 64}),
    "qwen3_moe": Family("qwen3moe", "qwen3_moe", {**MOE, "norm_topk_prob": True, "head_dim": 32}),
    "olmoe": Family("olmoe", "olmoe", {"num_experts": 8, "num_experts_per_tok": 3, "num_key_value_heads": 4}),
    "granite": Family("granite", "granite", {"embedding_multiplier": 12.0, "attention_multiplier": 0.0078125,
        "residual_multiplier": 0.22, "logits_scaling": 6.0}),
    "granitemoe": Family("granitemoe", "granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2,
        "embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22, "logits_scaling": 6.0}),
    "granitemoeshared": Family("granitemoe", "granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": 64, "attention_multiplier": 0.25, "tie_word_embeddings": True}),
    "phimoe": Family("phimoe", "phimoe", {"num_local_experts": 4, "attention_bias": True, "lm_head_bias": True}),
    "gpt_oss": Family("gpt-oss", "gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16,
        "sliding_window": 8, "rope_parameters": {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}}),
    "glm4_moe": Family("glm4moe", "glm4_moe", {"n_routed_experts": 8, "moe_intermediate_size": 32, "head_dim": 32,
        "num_experts_per_tok": 2, "use_qk_norm": True, "attention_bias": True, "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1}),
    "minimax_m2": Family("minimax-m2", "minimax_m2", {"num_local_experts": 8, "num_experts_per_tok": 3, "head_dim": 32,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5}}),
    "ernie4_5_moe": Family("ernie4_5-moe", "ernie4_5_moe", {"moe_num_experts": 8, "moe_k": 3, "moe_intermediate_size": 32,
        "moe_layer_start_index": 1, "moe_layer_end_index": 3, "use_bias": False}),
    "hunyuan_v1_moe": Family("hunyuan-moe", "hunyuan_v1_moe", {"num_experts": 8, "moe_topk": 2, "head_dim": 16}),
    "qwen3_next": Family("qwen3next", "qwen3_next", DELTA),
    "qwen3_5_moe": Family("qwen35moe", "qwen3_5_moe_text", DELTA),
    "deepseek_v2": Family("deepseek2", "deepseek_v2", {**LATENT, "q_lora_rank": None, "n_group": 1, "topk_group": 1, "rope_parameters": {**YARN,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.707, "mscale_all_dim": 0.707}}),
    "deepseek_v3": Family("deepseek2", "deepseek_v3", {**LATENT, "q_lora_rank": 32, "n_group": 4, "topk_group": 2}),
}  # fmt: skip


def tiny_model(family: Family, **sizes: Any) -> PreTrainedModel:
    """A random model; what would be zeros or ones at first is random too."""
    torch.manual_seed(0)
    known = AutoConfig.for_model(family.model_type).to_dict()
    values = {
        name: value for name, value in (SIZES | family.sizes | sizes).items() if name in known or name in family.sizes
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.model_type, **values)).eval()
    for name, values in model.state_dict().items():
        if "norm" in name or values.dim() == 1:
            values.add_(torch.rand_like(values) / 2)
    return model


def convert(model: PreTrainedModel, folder: Path, architecture: str, types: dict[str, str] | None = None) -> Path:
    """Save a model as a checkpoint, and that as `model.gguf` beside it."""
    model.save_pretrained(folder)
    tensors = {name: values.numpy() for name, values in gguf_tensors(folder, architecture, model.config)}
    return write_gguf(folder / "model.gguf", architecture, gguf_keys(architecture, model.config), tensors, types)


def gguf_tensors(folder: Path, architecture: str, config: PretrainedConfig) -> Iterator[tuple[str, torch.Tensor]]:
    names = get_tensor_name_map(
        next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture), config.num_hidden_layers
    )
    for theirs, values in _stacked(load_file(folder / "model.safetensors")):
        for name, changed in _changed(architecture, theirs, values, config):
            found = name if name.startswith("blk.") else names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert found, f"{name} is not in the table of gguf"
            yield found, changed.squeeze().contiguous()


def _stacked(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    experts: dict[str, dict[int, torch.Tensor]] = {}
    for name, values in tensors.items():
        if match := re.fullmatch(r"(.+\.experts)\.(\d+)\.(.+)", name):
            experts.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = values
        else:
            yield name, values
    for name, rows in experts.items():
        yield name, torch.stack([rows[number] for number in range(len(rows))])


def _changed(
    architecture: str, name: str, values: torch.Tensor, config: PretrainedConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    name = name.replace("self_attn.sinks", "self_attn.sinks.weight")
    block = f"blk.{match[1]}." if (match := re.search(r"layers\.(\d+)\.", name)) else ""
    if architecture in ("llama", "granite", "granitemoe"):
        values = _permuted(name, values, config)
    if name.endswith("input_linear.weight"):
        kind = "exps" if "block_sparse" in name else "shexp"
        for part, half in zip(("gate", "up"), values.chunk(2, -2), strict=True):
            yield f"{block}ffn_{part}_{kind}.weight", half
    elif architecture == "gpt-oss" and "experts." in name:
        yield from _gpt_oss_expert(block, name, values)
    elif name.endswith("kv_b_proj.weight"):
        heads = values.reshape(config.num_attention_heads, -1, values.shape[-1])
        k, v = heads.split([config.qk_nope_head_dim, config.v_head_dim], 1)
        yield from ((f"{block}attn_k_b.weight", k.transpose(1, 2)), (f"{block}attn_v_b.weight", v))
    elif architecture in ("qwen3next", "qwen35moe"):
        yield from _delta_net(architecture, block, name, values, config)
    elif name.endswith("mlp.experts.gate_up_proj"):
        for part, half in zip(("gate", "up"), values.chunk(2, -2), strict=True):
            yield f"{block}ffn_{part}_exps.weight", half
    else:
        yield name if name.endswith((".weight", ".bias")) else f"{name}.weight", values


def _permuted(name: str, values: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
        (".." + name).split(".")[-2]
    )
    if heads is None:
        return values
    half = values.shape[0] // heads // 2
    return values.reshape(heads, 2, half, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _gpt_oss_expert(block: str, name: str, values: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    kind = "bias" if name.endswith("_bias") else "weight"
    if kind == "weight":
        values = values.transpose(-1, -2)
    if "down" in name:
        yield f"{block}ffn_down_exps.{kind}", values
        return
    yield f"{block}ffn_gate_exps.{kind}", values[:, ::2]
    yield f"{block}ffn_up_exps.{kind}", values[:, 1::2]


def _delta_net(
    architecture: str, block: str, name: str, values: torch.Tensor, config: PretrainedConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    keys, heads = config.linear_num_key_heads, config.linear_num_value_heads
    key_dim, value_dim = config.linear_key_head_dim, config.linear_value_head_dim
    if architecture == "qwen35moe":
        values = _tiled(name, values.squeeze(), keys, heads // keys, (key_dim, value_dim))
    if name.endswith("A_log"):
        values = -torch.exp(values)
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        values = values + 1
    if name.endswith("in_proj_qkvz.weight"):
        turns = heads // keys * value_dim
        parts = values.reshape(keys, -1, values.shape[1]).split([key_dim, key_dim, turns, turns], 1)
        q, k, v, z = (part.reshape(-1, values.shape[1]) for part in parts)
        yield from ((f"{block}attn_qkv.weight", torch.cat([q, k, v])), (f"{block}attn_gate.weight", z))
    elif name.endswith("in_proj_ba.weight"):
        yield f"{block}ssm_ba.weight", values
    elif name.endswith("mlp.experts.gate_up_proj"):
        for part, half in zip(("gate", "up"), values.chunk(2, -2), strict=True):
            yield f"{block}ffn_{part}_exps.weight", half
    else:
        yield name.replace(".dt_bias", ".dt_proj.bias"), values


def _tiled(name: str, values: torch.Tensor, keys: int, turns: int, dims: tuple[int, int]) -> torch.Tensor:
    def reorder(part: torch.Tensor, width: int) -> torch.Tensor:
        return part.reshape(keys, turns, width, -1).transpose(0, 1).reshape(part.shape)

    last = name.removesuffix(".weight").rpartition(".")[2]
    before = 2 * keys * dims[0]
    if last in ("in_proj_qkv", "conv1d"):
        return torch.cat([values[:before], reorder(values[before:], dims[1])])
    if last == "in_proj_z":
        return reorder(values, dims[1])
    if last in ("in_proj_a", "in_proj_b", "A_log", "dt_bias"):
        return reorder(values, 1)
    return reorder(values.T, dims[1]).T if last == "out_proj" else values


def gguf_keys(architecture: str, config: PretrainedConfig) -> dict[str, Any]:
    """The keys that the converter writes."""
    theirs = config.to_dict()
    keys: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
    }
    for key, names in _SAME.items():
        for name in names:
            if theirs.get(name) is not None:
                keys[key] = theirs[name]
                break
    if (head_dim := theirs.get("head_dim")) and architecture not in ("deepseek2", "granite", "granitemoe"):
        keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    keys |= _rope_keys(config) | _own_keys(architecture, config)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    tokens = {"eos": ends[0], "bos": config.bos_token_id, "eot": 7}
    return keys | {f"tokenizer.ggml.{name}_token_id": token for name, token in tokens.items()}


_SAME = {
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "expert_used_count": ("num_experts_per_tok", "moe_k", "moe_topk"),
    "expert_group_count": ("n_group",),
    "expert_group_used_count": ("topk_group",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
}


def _rope_keys(config: PretrainedConfig) -> dict[str, Any]:
    rope = config.rope_parameters
    keys = {"rope.freq_base": float(rope["rope_theta"])}
    if rope["rope_type"] == "yarn":
        keys |= {"rope.scaling.type": "yarn", "rope.scaling.factor": rope["factor"]}
        keys |= {"rope.scaling.original_context_length": rope["original_max_position_embeddings"]}
        keys |= {f"rope.scaling.yarn_{name}": rope[name] for name in ("beta_fast", "beta_slow") if name in rope}
    return keys


def _own_keys(architecture: str, config: PretrainedConfig) -> dict[str, Any]:
    turned = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    turned = int(turned * config.rope_parameters.get("partial_rotary_factor", 1))
    keys: dict[str, Any] = {}
    if architecture in ("llama", "granite", "granitemoe", "glm4moe", "minimax-m2", "qwen3next", "qwen35moe"):
        keys["rope.dimension_count"] = turned
    if architecture in ("granite", "granitemoe"):
        keys |= {
            "embedding_scale": float(config.embedding_multiplier),
            "attention.scale": float(config.attention_multiplier),
        }
        keys |= {"residual_scale": float(config.residual_multiplier), "logit_scale": float(config.logits_scaling)}
        if width := getattr(config, "shared_intermediate_size", 0):
            keys["expert_shared_feed_forward_length"] = width
    if architecture in ("qwen3next", "qwen35moe"):
        keys |= {"ssm.conv_kernel": config.linear_conv_kernel_dim, "ssm.state_size": config.linear_key_head_dim}
        keys |= {"ssm.group_count": config.linear_num_key_heads, "ssm.time_step_rank": config.linear_num_value_heads}
        keys["ssm.inner_size"] = config.linear_value_head_dim * config.linear_num_value_heads
    return keys | _router_keys(architecture, config) | (_latent_keys(config) if architecture == "deepseek2" else {})


def _router_keys(architecture: str, config: PretrainedConfig) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    if architecture in ("qwen2moe", "qwen3next", "qwen35moe"):
        keys["expert_shared_feed_forward_length"] = config.shared_expert_intermediate_size
    if architecture == "gpt-oss":
        keys |= {
            "attention.sliding_window": config.sliding_window,
            "expert_feed_forward_length": config.intermediate_size,
        }
    if architecture in ("glm4moe", "deepseek2"):
        keys |= {
            "expert_shared_count": config.n_shared_experts,
            "expert_weights_scale": float(config.routed_scaling_factor),
        }
        keys["leading_dense_block_count"] = config.first_k_dense_replace
    if architecture == "glm4moe":
        keys |= {"expert_gating_func": 2, "expert_weights_norm": config.norm_topk_prob}
    if architecture == "minimax-m2":
        keys |= {"expert_gating_func": 2, "expert_feed_forward_length": config.intermediate_size}
    if architecture == "ernie4_5-moe":
        keys |= {
            "interleave_moe_layer_step": config.moe_layer_interval,
            "expert_shared_count": config.moe_num_shared_experts,
        }
        keys["leading_dense_block_count"] = config.moe_layer_start_index
    if architecture == "hunyuan-moe":
        keys |= {"expert_shared_feed_forward_length": config.intermediate_size, "expert_shared_count": 1}
        keys |= {
            "expert_feed_forward_length": config.intermediate_size,
            "rope.scaling.type": "none",
            "rope.scaling.factor": 1.0,
        }
    return keys


def _latent_keys(config: PretrainedConfig) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": config.kv_lora_rank,
        "attention.key_length": config.kv_lora_rank + config.qk_rope_head_dim,
        "attention.value_length": config.kv_lora_rank,
        "attention.key_length_mla": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "attention.value_length_mla": config.v_head_dim,
        "rope.dimension_count": config.qk_rope_head_dim,
    }
    if config.q_lora_rank:
        keys["attention.q_lora_rank"] = config.q_lora_rank
    if config.norm_topk_prob:
        keys["expert_weights_norm"] = True
    if config.model_type == "deepseek_v3":
        keys["expert_gating_func"] = 2
    if (mscale := config.rope_parameters.get("mscale_all_dim")) is not None:
        keys["rope.scaling.yarn_log_multiplier"] = 0.1 * mscale
    return keys
