"""What each architecture of GGUF adds to a configuration: its model type, its router, and what its keys leave out.

llama.cpp fixes much of a router in its code: these are the values that its `src/models/*.cpp` pass to `build_moe_ffn`,
and that the scripts in `conversion/` assume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rotary_batch.engine.packs.gguf_keys import Keys
from rotary_batch.engine.packs.gguf_routers import (
    SIGMOID,
    SOFTMAX,
    SOFTMAX_OF_CHOSEN,
    Config,
    deepseek_experts,
    delta_net,
    experts_of,
    latent_attention,
    latent_rope,
    qwen_experts,
    require_scores,
    shared_width,
    window_of,
)


def _llama(source: Keys, config: Mapping[str, Any]) -> Config:
    window = window_of(source, config)
    if source.whole("expert_count", 0) == 0:
        return {"model_type": "llama", "mlp_bias": source.has_tensor(".ffn_up.bias"), **window}
    require_scores(source, scores=(SOFTMAX,))
    return {"model_type": "mixtral", **experts_of(source, "num_local_experts"), "norm_topk_prob": True, **window}


def _qwen2(_source: Keys, _config: Mapping[str, Any]) -> Config:
    return {"model_type": "qwen2"}


def _qwen3(_source: Keys, _config: Mapping[str, Any]) -> Config:
    return {"model_type": "qwen3"}


def _qwen2_moe(source: Keys, config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SOFTMAX,))
    bias = {"qkv_bias": source.has_tensor(".attn_q.bias")}
    return {
        "model_type": "qwen2_moe",
        **bias,
        **qwen_experts(source, config, normalised=False),
        **shared_width(source, config),
    }


def _qwen3_moe(source: Keys, config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SOFTMAX,))
    return {"model_type": "qwen3_moe", **qwen_experts(source, config, normalised=True)}


def _qwen3_next(source: Keys, config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SOFTMAX,))
    experts = qwen_experts(source, config, normalised=True) | shared_width(source, config)
    return {"model_type": "qwen3_next", **experts, **delta_net(source, config)}


def _qwen3_5_moe(source: Keys, config: Mapping[str, Any]) -> Config:
    return _qwen3_next(source, config) | {"model_type": "qwen3_5_moe_text"}


def _olmoe(source: Keys, _config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SOFTMAX,))
    normalised = source.boolean("expert_weights_norm", default=False)
    clip = {"clip_qkv": source.number("attention.clamp_kqv")} if source.has("attention.clamp_kqv") else {}
    return {"model_type": "olmoe", **experts_of(source, "num_experts"), "norm_topk_prob": normalised, **clip}


def _granite(source: Keys, config: Mapping[str, Any]) -> Config:
    if not source.boolean("rope.scaling.finetuned", default=True):
        raise source.error(
            "rope.scaling.finetuned", "is false: a Granite model without positions, which cannot be read"
        )
    common = {
        "embedding_multiplier": source.number("embedding_scale", 1.0),
        "residual_multiplier": source.number("residual_scale", 1.0),
        "attention_multiplier": source.number("attention.scale", config["head_dim"] ** -0.5),
        "logits_scaling": source.number("logit_scale", 1.0),
    }
    if source.whole("expert_count", 0) == 0:
        return {"model_type": "granite", "mlp_bias": source.has_tensor(".ffn_up.bias"), **common}
    require_scores(source, scores=(SOFTMAX, SOFTMAX_OF_CHOSEN))
    common |= experts_of(source, "num_local_experts")
    if shared := source.whole("expert_shared_feed_forward_length", 0):
        return {"model_type": "granitemoeshared", "shared_intermediate_size": shared, **common}
    return {"model_type": "granitemoe", **common}


def _phimoe(source: Keys, config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SOFTMAX,))
    rope = dict(config["rope_parameters"])
    if rope["rope_type"] == "longrope":
        # The converter writes another factor than the checkpoint's own, which is the same in all three of these models.
        rope.pop("attention_factor", None)
        rope |= {"short_mscale": 1.243163121016122, "long_mscale": 1.243163121016122}
    return {
        "model_type": "phimoe",
        "rope_parameters": rope,
        **experts_of(source, "num_local_experts"),
        "router_jitter_noise": 0.01,
        "lm_head_bias": "output.bias" in source.tensors,
        **window_of(source, config),
    }


def _gpt_oss(source: Keys, config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SOFTMAX_OF_CHOSEN,))
    layers = config["num_hidden_layers"]
    slides = source.booleans("attention.sliding_window_pattern", layers)
    if slides is None:
        period = source.whole("attention.sliding_window_pattern", 2)
        slides = [period > 0 and layer % period < period - 1 for layer in range(layers)]
    rope = dict(config["rope_parameters"])
    if rope["rope_type"] == "yarn":
        rope["truncate"] = False  # not a key of GGUF
    return {
        "model_type": "gpt_oss",
        "rope_parameters": rope,
        **experts_of(source, "num_local_experts"),
        "intermediate_size": source.whole("expert_feed_forward_length"),
        "sliding_window": source.whole("attention.sliding_window"),
        "layer_types": ["sliding_attention" if slide else "full_attention" for slide in slides],
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    }


def _glm4_moe(source: Keys, _config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SIGMOID,), scaled=True)
    return {
        "model_type": "glm4_moe",
        **deepseek_experts(source, normalised=True),
        "use_qk_norm": source.has_tensor(".attn_q_norm.weight"),
    }


def _minimax_m2(source: Keys, config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SIGMOID,))
    return {
        "model_type": "minimax_m2",
        **experts_of(source, "num_local_experts"),
        "intermediate_size": source.whole("expert_feed_forward_length", config["intermediate_size"]),
        "use_qk_norm": True,
    }


def _ernie(source: Keys, config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SOFTMAX,))
    return {
        "model_type": "ernie4_5_moe",
        "moe_num_experts": source.whole("expert_count"),
        "moe_k": source.whole("expert_used_count"),
        "moe_intermediate_size": source.whole("expert_feed_forward_length"),
        "moe_num_shared_experts": source.whole("expert_shared_count", 0),
        "moe_layer_start_index": source.whole("leading_dense_block_count", 0),
        "moe_layer_end_index": config["num_hidden_layers"] - 1,
        "moe_layer_interval": source.whole("interleave_moe_layer_step", 1),
        "moe_norm_min": 1e-12,
        "use_bias": source.has_tensor(".attn_q.bias"),
    }


def _hunyuan(source: Keys, config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SOFTMAX,))
    # The base of its rope was scaled by the converter, so none is left to be done.
    return {
        "model_type": "hunyuan_v1_moe",
        "num_experts": source.whole("expert_count"),
        "moe_topk": source.whole("expert_used_count"),
        "intermediate_size": source.whole("expert_feed_forward_length", config["intermediate_size"]),
        "num_shared_expert": source.whole("expert_shared_count", 1),
    }


def _bailing(source: Keys, _config: Mapping[str, Any]) -> Config:
    require_scores(source, scores=(SIGMOID,), scaled=True)
    experts = deepseek_experts(source, normalised=True, groups=(8, 4))
    return {
        "model_type": "bailing_moe_v2",
        "architectures": ["BailingMoeV2ForCausalLM"],
        **experts,
        "num_experts": experts["n_routed_experts"],
        "num_shared_experts": experts["n_shared_experts"],
        "score_function": "sigmoid",
        "use_qkv_bias": source.has_tensor(".attn_qkv.bias"),
        "use_qk_norm": True,
    }


def _deepseek(source: Keys, config: Mapping[str, Any]) -> Config:
    """DeepSeek V2 and V3, and what is built like them: GLM-4.7-Flash, Kimi-K2."""
    default = SIGMOID if source.has_tensor(".exp_probs_b.bias") else SOFTMAX
    is_v3 = require_scores(source, scores=(SOFTMAX, SIGMOID), scaled=True, default=default) == SIGMOID
    # Files of early 2025 lack the groups; the models with 256 experts have 8, of which 4 are chosen.
    groups = (8, 4) if is_v3 and source.whole("expert_count") == 256 else (1, 1)
    experts = deepseek_experts(source, normalised=False, groups=groups)
    if not is_v3:
        experts["topk_method"] = "group_limited_greedy" if experts["n_group"] > 1 else "greedy"
    return {
        "model_type": "deepseek_v3" if is_v3 else "deepseek_v2",
        **experts,
        **latent_attention(source),
        "num_key_value_heads": config["num_attention_heads"],
        "rope_parameters": latent_rope(source, config["rope_parameters"]),
    }


FAMILIES: dict[str, Callable[[Keys, Mapping[str, Any]], Config]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen2moe": _qwen2_moe,
    "qwen3moe": _qwen3_moe,
    "olmoe": _olmoe,
    "granite": _granite,
    "granitemoe": _granite,
    "phimoe": _phimoe,
    "gpt-oss": _gpt_oss,
    "glm4moe": _glm4_moe,
    "minimax-m2": _minimax_m2,
    "ernie4_5-moe": _ernie,
    "hunyuan-moe": _hunyuan,
    "bailingmoe2": _bailing,
    "qwen3next": _qwen3_next,
    "qwen35moe": _qwen3_5_moe,
    "deepseek2": _deepseek,
}
