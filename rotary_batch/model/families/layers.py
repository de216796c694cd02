"""Which layers of a model have experts, and how a feed-forward without experts is cut into slices."""

from __future__ import annotations

from typing import Any

from rotary_batch.model.geometry import ALL_ACTIVE, MAX_LAYERS, MAX_SIZES
from rotary_batch.model.tables import Table

# A slice is a multiple of the largest block of a quantised row, where that divides the feed-forward.
_SLICE_COLUMNS = (256, 64, 32, 1)
SLICE_PARAMS = 32 * 2**20  # of a slice, at most: 64 MB in bf16, as large as a slab of Mixtral


def dense_layers(config: Table) -> dict[str, Any]:
    """Layers whose feed-forward has no experts, and its width."""
    num_layers = config.whole("num_hidden_layers", MAX_LAYERS)
    if config.has("mlp_layer_types"):
        kinds = config.texts("mlp_layer_types", MAX_LAYERS)
        plain = tuple(layer for layer, kind in enumerate(kinds) if kind == "dense")
    elif config.has("first_k_dense_replace"):
        plain = tuple(range(config.whole("first_k_dense_replace", MAX_LAYERS, least=0)))
    else:
        plain = _by_step(config, num_layers)
    if not plain:
        return {}
    width = config.whole("intermediate_size", MAX_SIZES["intermediate_size"])
    return {"dense_layers": plain, "dense_intermediate_size": width}


def _by_step(config: Table, num_layers: int) -> tuple[int, ...]:
    """As Qwen's configs say it: every `decoder_sparse_step`-th layer has experts, except `mlp_only_layers`."""
    step = config.whole("decoder_sparse_step", MAX_LAYERS) if config.has("decoder_sparse_step") else 1
    named = config.wholes("mlp_only_layers", MAX_LAYERS, MAX_LAYERS) if config.has("mlp_only_layers") else ()
    return tuple(layer for layer in range(num_layers) if layer in named or (layer + 1) % step)


def sliced(config: Table) -> dict[str, Any]:
    """The feed-forward of a dense model as slices that every row has."""
    hidden, middle = (config.whole(name, MAX_SIZES[name]) for name in ("hidden_size", "intermediate_size"))
    most = max(1, SLICE_PARAMS // (3 * hidden))
    for unit in _SLICE_COLUMNS:
        if middle % unit == 0:
            units = middle // unit
            fewest = -(-units * unit // most)
            count = next((n for n in range(fewest, units + 1) if units % n == 0), units)
            break
    return {"scoring": ALL_ACTIVE, "num_experts": count, "top_k": count, "intermediate_size": middle // count}
