"""Mixtral 8x7B and 8x22B (arXiv 2401.04088)."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.families.config import window
from rotary_batch.model.families.family import Family
from rotary_batch.model.tables import Table


def _switches(config: Table) -> dict[str, Any]:
    return {"sliding_window": window(config)}


FAMILIES = (
    Family(
        name="mixtral",
        model_types=("mixtral",),
        architectures=("MixtralForCausalLM",),
        oracle="MixtralForCausalLM",
        default_theta=1e6,
        switches=_switches,
    ),
)
