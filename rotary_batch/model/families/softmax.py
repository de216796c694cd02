"""Families whose routers take a softmax: OLMoE, Phi-3.5-MoE, ERNIE 4.5 and Hunyuan-A13B."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.families.config import attention_bias, flag, one_whole, window
from rotary_batch.model.families.family import Family
from rotary_batch.model.geometry import MAX_LAYERS, MAX_SIZES
from rotary_batch.model.tables import Table

_WIDTH = MAX_SIZES["intermediate_size"]


def _olmoe(config: Table) -> dict[str, Any]:
    if config.has("clip_qkv"):
        raise config.error("clip_qkv is set; this version does not clip queries, keys and values")
    return {
        "renormalise": flag(config, "norm_topk_prob"),
        "qk_norm": "full",
        "attention_bias": attention_bias(config, "qkvo"),
    }


def _phimoe(config: Table) -> dict[str, Any]:
    return {
        "scoring": "sparsemixer",
        "renormalise": False,
        "layer_norm": True,
        "sliding_window": window(config),
        "attention_bias": attention_bias(config, "qkvo"),
        "head_bias": flag(config, "lm_head_bias"),
    }


def _ernie(config: Table) -> dict[str, Any]:
    if flag(config, "use_bias"):
        raise config.error("use_bias is set; this version has no biases in this family")
    shared_name = "moe_num_shared_experts"
    shared = config.whole(shared_name, MAX_SIZES["num_experts"], least=0) if config.has(shared_name) else 0
    return {
        "choice_bias": True,
        "renormalise_min": config.positive("moe_norm_min") if config.has("moe_norm_min") else 1e-12,
        "shared_intermediate_size": shared * one_whole(config, ("moe_intermediate_size",), _WIDTH),
        **_between(config),
    }


def _between(config: Table) -> dict[str, Any]:
    """Layers from the first with experts to the last, at an interval, have experts; the others have none."""
    num_layers = config.whole("num_hidden_layers", MAX_LAYERS)
    first = config.whole("moe_layer_start_index", MAX_LAYERS, least=0) if config.has("moe_layer_start_index") else 1
    interval = config.whole("moe_layer_interval", MAX_LAYERS) if config.has("moe_layer_interval") else 1
    last = num_layers - 1
    if config.has("moe_layer_end_index") and config.whole("moe_layer_end_index", MAX_LAYERS, least=-1) >= 0:
        last = config.whole("moe_layer_end_index", MAX_LAYERS, least=0)
    plain = tuple(n for n in range(num_layers) if (n + 1) % interval or not first <= n <= last)
    if not plain:
        return {}
    return {"dense_layers": plain, "dense_intermediate_size": config.whole("intermediate_size", _WIDTH)}


def _hunyuan(config: Table) -> dict[str, Any]:
    shared = one_whole(config, ("num_shared_expert",), 64) if config.has("num_shared_expert") else 1
    return {
        "qk_norm": "head_after_rope",
        "attention_bias": attention_bias(config, "qkvo"),
        "shared_intermediate_size": shared * config.whole("intermediate_size", _WIDTH),
    }


FAMILIES = (
    Family(
        name="olmoe",
        model_types=("olmoe",),
        architectures=("OlmoeForCausalLM",),
        oracle="OlmoeForCausalLM",
        switches=_olmoe,
    ),
    Family(
        name="phimoe",
        model_types=("phimoe",),
        architectures=("PhimoeForCausalLM", "PhiMoEForCausalLM"),
        oracle="PhimoeForCausalLM",
        default_theta=1e6,
        switches=_phimoe,
    ),
    Family(
        name="ernie4_5_moe",
        model_types=("ernie4_5_moe",),
        architectures=("Ernie4_5_MoeForCausalLM",),
        oracle="Ernie4_5_MoeForCausalLM",
        default_theta=5e5,
        adjacent_pairs=True,
        switches=_ernie,
    ),
    Family(
        name="hunyuan_v1_moe",
        model_types=("hunyuan_v1_moe", "hunyuan"),
        architectures=("HunYuanMoEV1ForCausalLM",),
        oracle="HunYuanMoEV1ForCausalLM",
        switches=_hunyuan,
    ),
)
