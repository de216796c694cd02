"""Families whose routers take a sigmoid of each score: GLM-4.5 to 4.7, MiniMax-M2 and Ling 2.0."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.families.config import attention_bias, flag, one_whole
from rotary_batch.model.families.family import Family
from rotary_batch.model.families.layers import dense_layers
from rotary_batch.model.geometry import MAX_SIZES
from rotary_batch.model.tables import Table

_WIDTH = MAX_SIZES["intermediate_size"]


def grouped_sigmoid(config: Table) -> dict[str, Any]:
    """The router of DeepSeek-V3 (arXiv 2412.19437), which others took over, and the experts that every row has."""
    shared = ("n_shared_experts", "num_shared_experts")
    count = one_whole(config, shared, MAX_SIZES["num_experts"]) if any(map(config.has, shared)) else 0
    return {
        "scoring": "sigmoid",
        "choice_bias": True,
        "renormalise": flag(config, "norm_topk_prob", default=True),
        "routed_scale": config.positive("routed_scaling_factor") if config.has("routed_scaling_factor") else 1.0,
        "num_groups": config.whole("n_group", MAX_SIZES["num_experts"]) if config.has("n_group") else 1,
        "top_groups": config.whole("topk_group", MAX_SIZES["num_experts"]) if config.has("topk_group") else 1,
        "shared_intermediate_size": count * config.whole("moe_intermediate_size", _WIDTH),
        **dense_layers(config),
    }


def half_rotary(config: Table) -> dict[str, Any]:
    """Half of a head rotates unless the config says otherwise."""
    says = config.has("partial_rotary_factor") or config.table("rope_parameters").has("partial_rotary_factor")
    if says:
        return {}
    hidden, heads = (config.whole(name, 2**20) for name in ("hidden_size", "num_attention_heads"))
    head_dim = config.whole("head_dim", MAX_SIZES["head_dim"]) if config.has("head_dim") else hidden // heads
    return {"rotary_dim": head_dim // 2}


def _glm(config: Table) -> dict[str, Any]:
    return {
        **grouped_sigmoid(config),
        **half_rotary(config),
        "attention_bias": attention_bias(config, "qkv"),
        "qk_norm": "head" if flag(config, "use_qk_norm") else "",
    }


def _minimax(config: Table) -> dict[str, Any]:
    return {"scoring": "sigmoid", "choice_bias": True, "qk_norm": "full"}


def _ling(config: Table) -> dict[str, Any]:
    if flag(config, "use_bias"):
        raise config.error("use_bias is set; this version has no biases in this family")
    return {
        **grouped_sigmoid(config),
        **half_rotary(config),
        "attention_bias": attention_bias(config, "qkv", name="use_qkv_bias"),
        "qk_norm": "head" if flag(config, "use_qk_norm", default=True) else "",
    }


FAMILIES = (
    Family(
        name="glm4_moe",
        model_types=("glm4_moe",),
        architectures=("Glm4MoeForCausalLM",),
        oracle="Glm4MoeForCausalLM",
        switches=_glm,
    ),
    Family(
        name="minimax_m2",
        model_types=("minimax_m2",),
        architectures=("MiniMaxM2ForCausalLM",),
        oracle="MiniMaxM2ForCausalLM",
        default_theta=5e6,
        switches=_minimax,
    ),
    Family(
        name="bailing_moe_v2",
        model_types=("bailing_moe", "bailing_moe_v2"),
        architectures=("BailingMoeV2ForCausalLM",),
        oracle="Glm4MoeForCausalLM",  # transformers has no class for it; with GLM's names it is the same model
        switches=_ling,
    ),
)
