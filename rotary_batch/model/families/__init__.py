"""Families of models: how a config.json describes each, and which class of transformers it must agree with.

A family is a function from a config to the switches of `Geometry`; the decoder knows switches and no family.
"""

from __future__ import annotations

from rotary_batch.model.families import dense, gpt_oss, granite, latent, mixtral, qwen, qwen_delta, sigmoid, softmax
from rotary_batch.model.families.config import sizes, text_table
from rotary_batch.model.families.family import Family
from rotary_batch.model.geometry import MAX_ENDS, Geometry
from rotary_batch.model.tables import Table, shown

FAMILIES: tuple[Family, ...] = (
    *mixtral.FAMILIES,
    *qwen.FAMILIES,
    *qwen_delta.FAMILIES,
    *softmax.FAMILIES,
    *granite.FAMILIES,
    *sigmoid.FAMILIES,
    *latent.FAMILIES,
    *gpt_oss.FAMILIES,
    *dense.FAMILIES,
)


def family_of(config: Table) -> Family:
    """The family that a config names, by architecture or model type.  Raises ModelError for an unknown one."""
    named = config.rows("architectures", MAX_ENDS) if config.has("architectures") else []
    kind = config.text("model_type") if config.has("model_type") else None
    for family in FAMILIES:
        if set(family.architectures) & {name for name in named if isinstance(name, str)}:
            return family
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    known = ", ".join(sorted({name for family in FAMILIES for name in family.architectures}))
    raise config.error(f"unknown architecture {shown(next(iter(named), kind))}; known: {known}")


def geometry_of(config: Table, family: Family) -> Geometry:
    """The description of a model, from its config.json.  Raises ModelError."""
    text = text_table(config)
    values = sizes(text, family.default_theta) | {"family": family.name} | family.switches(text)
    for ours, theirs in (("num_experts", "num_local_experts"), ("top_k", "num_experts_per_tok")):
        if ours not in values:  # a dense model has its own
            raise text.wrong(theirs, "a whole number")
    return config.explained(lambda: Geometry(**values))
