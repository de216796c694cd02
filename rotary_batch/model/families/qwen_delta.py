"""Qwen's models with Gated DeltaNet in most layers: Qwen3-Next, Qwen3.5 and 3.6, with experts and dense."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.families.config import attention_bias, flag
from rotary_batch.model.families.family import Family
from rotary_batch.model.families.layers import dense_layers, sliced
from rotary_batch.model.geometry import DELTA, FULL, MAX_LAYERS, MAX_SIZES
from rotary_batch.model.tables import Table

_INTERVAL = 4  # every fourth layer has full attention, where a config does not say it
_ROTARY_SHARE = 0.25
_KINDS = {"full_attention": FULL, "linear_attention": DELTA}
_DELTA_SIZES = {
    "delta_key_heads": "linear_num_key_heads",
    "delta_value_heads": "linear_num_value_heads",
    "delta_key_dim": "linear_key_head_dim",
    "delta_value_dim": "linear_value_head_dim",
    "delta_conv": "linear_conv_kernel_dim",
}


def _hybrid(config: Table) -> dict[str, Any]:
    """What all of these models share."""
    values: dict[str, Any] = {
        ours: config.whole(theirs, MAX_SIZES["head_dim"]) for ours, theirs in _DELTA_SIZES.items()
    }
    parameters = config.table("rope_parameters")
    if not any(table.has("partial_rotary_factor") for table in (config, parameters)):
        values["rotary_dim"] = int(config.whole("head_dim", MAX_SIZES["head_dim"]) * _ROTARY_SHARE)
    return values | {
        "attention_kinds": _attention_kinds(config),
        "attention_bias": attention_bias(config, "qkvo"),
        "qk_norm": "head",
        "output_gate": True,
        "zero_centred_norm": True,
    }


def _attention_kinds(config: Table) -> tuple[str, ...]:
    num_layers = config.whole("num_hidden_layers", MAX_LAYERS)
    if config.has("layer_types"):
        return tuple(_KINDS.get(kind, kind) for kind in config.texts("layer_types", MAX_LAYERS))
    name = "full_attention_interval"
    interval = config.whole(name, MAX_LAYERS) if config.has(name) else _INTERVAL
    return tuple(DELTA if (layer + 1) % interval else FULL for layer in range(num_layers))


def _shared_expert(config: Table) -> dict[str, Any]:
    size = config.whole("shared_expert_intermediate_size", MAX_SIZES["intermediate_size"])
    return {"shared_intermediate_size": size, "shared_gate": True}


def _qwen3_next(config: Table) -> dict[str, Any]:
    renormalise = flag(config, "norm_topk_prob", default=True)
    return _hybrid(config) | _shared_expert(config) | dense_layers(config) | {"renormalise": renormalise}


def _qwen3_5_moe(config: Table) -> dict[str, Any]:
    return _hybrid(config) | _shared_expert(config)


def _qwen3_5(config: Table) -> dict[str, Any]:
    return _hybrid(config) | sliced(config)


FAMILIES = (
    Family(
        name="qwen3_next",
        model_types=("qwen3_next",),
        architectures=("Qwen3NextForCausalLM",),
        oracle="Qwen3NextForCausalLM",
        switches=_qwen3_next,
    ),
    Family(
        name="qwen3_5_moe",
        model_types=("qwen3_5_moe", "qwen3_5_moe_text"),
        architectures=("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
        oracle="Qwen3_5MoeForCausalLM",
        switches=_qwen3_5_moe,
    ),
    Family(
        name="qwen3_5",
        model_types=("qwen3_5", "qwen3_5_text"),
        architectures=("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"),
        oracle="Qwen3_5ForCausalLM",
        switches=_qwen3_5,
    ),
)
