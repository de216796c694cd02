"""Granite 3, with experts and dense: models with multipliers."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.families.config import attention_bias
from rotary_batch.model.families.family import Family
from rotary_batch.model.families.layers import sliced
from rotary_batch.model.geometry import MAX_SIZES
from rotary_batch.model.tables import Table

_MULTIPLIERS = {
    "embedding_multiplier": "embedding_multiplier",
    "residual_multiplier": "residual_multiplier",
    "attention_multiplier": "attention_scale",
    "logits_scaling": "logits_divisor",
}


def _multiplied(config: Table) -> dict[str, Any]:
    factors = {ours: config.positive(theirs) if config.has(theirs) else 1.0 for theirs, ours in _MULTIPLIERS.items()}
    return factors | {"attention_bias": attention_bias(config, "qkvo")}


def _moe(config: Table) -> dict[str, Any]:
    switches = _multiplied(config) | {"scoring": "topk_softmax"}
    if config.has("shared_intermediate_size"):
        width = config.whole("shared_intermediate_size", MAX_SIZES["intermediate_size"], least=0)
        switches["shared_intermediate_size"] = width
    return switches


def _dense(config: Table) -> dict[str, Any]:
    return _multiplied(config) | sliced(config)


FAMILIES = (
    Family(
        name="granitemoe",
        model_types=("granitemoe", "granitemoeshared"),
        architectures=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
        oracle="GraniteMoeSharedForCausalLM",
        switches=_moe,
    ),
    Family(
        name="granite",
        model_types=("granite",),
        architectures=("GraniteForCausalLM",),
        oracle="GraniteForCausalLM",
        switches=_dense,
    ),
)
