"""Dense models: Llama, Mistral, Qwen2, Qwen3 and SmolLM3.  Their feed-forward is cut into slices, which revolve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rotary_batch.model.families.config import attention_bias, attention_kinds, window
from rotary_batch.model.families.family import Family
from rotary_batch.model.families.layers import sliced
from rotary_batch.model.geometry import MAX_LAYERS
from rotary_batch.model.tables import Table

_Switches = Callable[[Table], dict[str, Any]]


def _llama(config: Table) -> dict[str, Any]:
    return sliced(config) | {"attention_bias": attention_bias(config, "qkvo")}


def _mistral(config: Table) -> dict[str, Any]:
    return sliced(config) | {"sliding_window": window(config)}


def _qwen2(config: Table) -> dict[str, Any]:
    return sliced(config) | _qwen_windows(config) | {"attention_bias": "qkv"}


def _qwen3(config: Table) -> dict[str, Any]:
    switches = {"attention_bias": attention_bias(config, "qkvo"), "qk_norm": "head"}
    return sliced(config) | _qwen_windows(config) | switches


def _smollm3(config: Table) -> dict[str, Any]:
    """Every fourth layer does not rotate; `no_rope_layers` has 1 for those that do."""
    rotates = config.wholes("no_rope_layers", MAX_LAYERS, 1) if config.has("no_rope_layers") else ()
    without = tuple(layer for layer, flag in enumerate(rotates) if not flag)
    return _llama(config) | _qwen_windows(config) | {"no_rope_layers": without}


def _qwen_windows(config: Table) -> dict[str, Any]:
    """The window counts only where `use_sliding_window` is set, in the layers that `layer_types` names."""
    tokens = window(config, needs="use_sliding_window")
    return {"sliding_window": tokens, "attention_kinds": () if tokens is None else attention_kinds(config)}


def _family(name: str, architecture: str, switches: _Switches, *aliases: str) -> Family:
    return Family(
        name=name,
        model_types=(name, *aliases),
        architectures=(architecture,),
        oracle=architecture,
        switches=switches,
    )


FAMILIES = (
    _family("llama", "LlamaForCausalLM", _llama),
    _family("mistral", "MistralForCausalLM", _mistral),
    _family("qwen2", "Qwen2ForCausalLM", _qwen2),
    _family("qwen3", "Qwen3ForCausalLM", _qwen3),
    _family("smollm3", "SmolLM3ForCausalLM", _smollm3),
)
