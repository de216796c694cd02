"""Qwen's models with experts: Qwen2-MoE and Qwen3-MoE."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.families.config import attention_bias, flag, window
from rotary_batch.model.families.family import Family
from rotary_batch.model.families.layers import dense_layers
from rotary_batch.model.geometry import MAX_SIZES
from rotary_batch.model.tables import Table


def _qwen2_moe(config: Table) -> dict[str, Any]:
    return {
        "sliding_window": window(config, needs="use_sliding_window"),
        "renormalise": flag(config, "norm_topk_prob"),
        "attention_bias": attention_bias(config, "qkv", default=True, name="qkv_bias"),
        "shared_intermediate_size": config.whole("shared_expert_intermediate_size", MAX_SIZES["intermediate_size"]),
        "shared_gate": True,
        **dense_layers(config),
    }


def _qwen3_moe(config: Table) -> dict[str, Any]:
    return {
        "sliding_window": window(config, needs="use_sliding_window"),
        "renormalise": flag(config, "norm_topk_prob"),
        "attention_bias": attention_bias(config, "qkvo"),
        "qk_norm": "head",
        **dense_layers(config),
    }


FAMILIES = (
    Family(
        name="qwen2_moe",
        model_types=("qwen2_moe",),
        architectures=("Qwen2MoeForCausalLM",),
        oracle="Qwen2MoeForCausalLM",
        switches=_qwen2_moe,
    ),
    Family(
        name="qwen3_moe",
        model_types=("qwen3_moe",),
        architectures=("Qwen3MoeForCausalLM",),
        oracle="Qwen3MoeForCausalLM",
        switches=_qwen3_moe,
    ),
)
