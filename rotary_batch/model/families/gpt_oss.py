"""gpt-oss-20b and gpt-oss-120b."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.families.config import attention_bias, attention_kinds, window
from rotary_batch.model.families.family import Family
from rotary_batch.model.geometry import FULL, MAX_LAYERS, WINDOW
from rotary_batch.model.tables import Table


def _switches(config: Table) -> dict[str, Any]:
    num_layers = config.whole("num_hidden_layers", MAX_LAYERS)
    every_second = tuple(FULL if layer % 2 else WINDOW for layer in range(num_layers))
    return {
        "scoring": "topk_softmax",
        "router_bias": True,
        "expert_bias": True,
        "swiglu_limit": config.positive("swiglu_limit") if config.has("swiglu_limit") else 7.0,
        "swiglu_alpha": config.positive("swiglu_alpha") if config.has("swiglu_alpha") else 1.702,
        "attention_bias": attention_bias(config, "qkvo", default=True),
        "attention_sinks": True,
        "sliding_window": window(config),
        "attention_kinds": attention_kinds(config) or every_second,
    }


FAMILIES = (
    Family(
        name="gpt_oss",
        model_types=("gpt_oss",),
        architectures=("GptOssForCausalLM",),
        oracle="GptOssForCausalLM",
        default_theta=1.5e5,
        interleaved_experts=True,
        switches=_switches,
    ),
)
