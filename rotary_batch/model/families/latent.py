"""Families with multi-head latent attention: DeepSeek-V2, DeepSeek-V3 and R1, GLM-4.7-Flash."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.families.config import flag
from rotary_batch.model.families.family import Family
from rotary_batch.model.families.layers import dense_layers
from rotary_batch.model.families.sigmoid import grouped_sigmoid
from rotary_batch.model.geometry import MAX_SIZES
from rotary_batch.model.tables import Table, shown

_HEAD, _WIDTH, _EXPERTS = MAX_SIZES["head_dim"], MAX_SIZES["intermediate_size"], MAX_SIZES["num_experts"]


def _attention(config: Table, scoring: str) -> dict[str, Any]:
    """One key for all heads: the latent, and behind it the dimensions that rotate."""
    for name in ("attention_bias", "mlp_bias"):
        if flag(config, name):
            raise config.error(f"{name} is set; this version has no biases in this family")
    if config.has("scoring_func") and config.text("scoring_func") != scoring:
        raise config.error(f"scoring_func is {shown(config.text('scoring_func'))}; known in this family: {scoring}")
    if not flag(config, "rope_interleave", default=True):
        raise config.error("rope_interleave is false; this version has neighbours that rotate in this family")
    sizes = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    latent, rotary, plain, value = (config.whole(name, _HEAD // 2) for name in sizes)
    return {
        "num_kv_heads": 1,
        "head_dim": latent + rotary,
        "rotary_dim": rotary,
        "kv_lora_rank": latent,
        "q_lora_rank": config.whole("q_lora_rank", _HEAD) if config.has("q_lora_rank") else 0,
        "nope_head_dim": plain,
        "value_head_dim": value,
    }


def _layers(config: Table, first: int) -> dict[str, Any]:
    """Dense layers; the `first` ones where a config does not say it."""
    if config.has("moe_layer_freq") and not config.holds("moe_layer_freq", list):
        step = config.whole("moe_layer_freq", MAX_SIZES["num_layers"])
        if step != 1:
            raise config.error(f"moe_layer_freq is {step}; this version has experts in every layer after the first")
    if first and not any(map(config.has, ("mlp_layer_types", "first_k_dense_replace"))):
        width = config.whole("intermediate_size", _WIDTH)
        return {"dense_layers": tuple(range(first)), "dense_intermediate_size": width}
    return dense_layers(config)


def _deepseek_v2(config: Table) -> dict[str, Any]:
    """Groups count by their best expert, and weights are not made to sum to 1, whatever `norm_topk_prob` says."""
    method = config.text("topk_method") if config.has("topk_method") else "greedy"
    if method not in {"greedy", "group_limited_greedy"}:
        raise config.error(f"topk_method is {shown(method)}; known: greedy, group_limited_greedy")
    groups = {}
    if method == "group_limited_greedy":
        groups = {"num_groups": config.whole("n_group", _EXPERTS), "top_groups": config.whole("topk_group", _EXPERTS)}
    shared = config.whole("n_shared_experts", _EXPERTS, least=0) if config.has("n_shared_experts") else 0
    return {
        **_attention(config, "softmax"),
        **groups,
        "renormalise": False,
        "routed_scale": config.positive("routed_scaling_factor") if config.has("routed_scaling_factor") else 1.0,
        "shared_intermediate_size": shared * config.whole("moe_intermediate_size", _WIDTH),
        **_layers(config, 0),
    }


def _deepseek_v3(config: Table) -> dict[str, Any]:
    return grouped_sigmoid(config) | _attention(config, "sigmoid") | _layers(config, 3)


def _glm_lite(config: Table) -> dict[str, Any]:
    return grouped_sigmoid(config) | _attention(config, "sigmoid") | _layers(config, 1)


FAMILIES = (
    Family(
        name="deepseek_v2",
        model_types=("deepseek_v2",),
        architectures=("DeepseekV2ForCausalLM",),
        oracle="DeepseekV2ForCausalLM",
        adjacent_pairs=True,
        switches=_deepseek_v2,
    ),
    Family(
        name="deepseek_v3",
        model_types=("deepseek_v3",),
        architectures=("DeepseekV3ForCausalLM",),
        oracle="DeepseekV3ForCausalLM",
        adjacent_pairs=True,
        switches=_deepseek_v3,
    ),
    Family(
        name="glm4_moe_lite",
        model_types=("glm4_moe_lite",),
        architectures=("Glm4MoeLiteForCausalLM",),
        oracle="Glm4MoeLiteForCausalLM",
        adjacent_pairs=True,
        switches=_glm_lite,
    ),
)
