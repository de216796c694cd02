"""The description of a model as the table of a manifest: switches that have their defaults are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from rotary_batch.model.geometry import (
    DTYPE_NBYTES,
    MAX_ENDS,
    MAX_LAYERS,
    MAX_SIZES,
    MAX_TOKENS,
    MAX_VOCABULARY,
    Geometry,
)
from rotary_batch.model.rope_scaling import RopeScaling
from rotary_batch.model.tables import Table, shown

_MAX_SWITCH = 2**24  # of a switch that is a size
_REQUIRED: dict[str, Any] = dict.fromkeys(MAX_SIZES, 2) | {
    "rope_theta": 1.0,
    "rms_norm_eps": 1.0,
    "tie_word_embeddings": False,
    "sliding_window": None,
    "dtype": "BF16",
    "eos_ids": (),
}


def geometry_as_dict(geometry: Geometry) -> dict[str, Any]:
    """Plain data for a manifest."""
    return {name: _plain(value) for name, value in _changed(geometry).items()}


def geometry_from_table(table: Table) -> Geometry:
    """The inverse of `geometry_as_dict`.  Raises ModelError, also for a switch that this version does not have."""
    values: dict[str, Any] = {name: table.whole(name, most) for name, most in MAX_SIZES.items()}
    values |= {name: table.positive(name) for name in ("rope_theta", "rms_norm_eps")}
    values |= {
        "dtype": table.one_of("dtype", DTYPE_NBYTES),
        "eos_ids": table.wholes("eos_ids", MAX_ENDS, MAX_VOCABULARY),
        "tie_word_embeddings": table.boolean("tie_word_embeddings"),
        "sliding_window": table.whole("sliding_window", MAX_TOKENS) if table.has("sliding_window") else None,
    }
    scaling = table.table("rope_scaling")
    values["rope_scaling"] = table.explained(lambda: RopeScaling(**_switches(RopeScaling, scaling)))
    values = _switches(Geometry, table) | values
    return table.explained(lambda: Geometry(**values))


def _changed(described: Geometry | RopeScaling) -> dict[str, Any]:
    """The fields that have no default, or another value."""
    plain = type(described)(**_REQUIRED) if isinstance(described, Geometry) else RopeScaling()
    required = _REQUIRED if isinstance(described, Geometry) else {}
    return {
        one.name: getattr(described, one.name)
        for one in fields(described)
        if one.name in required or getattr(described, one.name) != getattr(plain, one.name)
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field
    if isinstance(value, RopeScaling):
        return {name: _plain(one) for name, one in _changed(value).items()}
    return list(value) if isinstance(value, tuple) else value


def _switches(cls: type, table: Table) -> dict[str, Any]:
    """The optional fields that a table has, each read by its type."""
    read: Mapping[Any, Any] = {
        bool: table.boolean,
        int: lambda name: table.whole(name, _MAX_SWITCH, least=0),
        float: table.finite,
        str: table.text,
        float | None: table.finite,
        int | None: lambda name: table.whole(name, _MAX_SWITCH),
        tuple[int, ...]: lambda name: table.wholes(name, MAX_LAYERS, MAX_LAYERS),
        tuple[float, ...]: lambda name: table.finites(name, MAX_LAYERS),
        tuple[str, ...]: lambda name: table.texts(name, MAX_LAYERS),
    }
    hints = get_type_hints(cls)
    if unknown := [name for name in table.names() if name not in hints]:
        raise table.error(f"{shown(unknown[0])} is a switch that this version does not have")
    optional = [name for name in hints if name not in _REQUIRED and hints[name] in read and table.has(name)]
    return {name: read[hints[name]](name) for name in optional}
