"""In which formats the numbers of a pack are stored that rows are multiplied by: each format and its share of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from rotary_batch.model.manifest import Manifest
from rotary_batch.model.slabs import expert_shapes

Shares = Mapping[str, float]  # format -> share of the numbers; together 1


def expert_shares(manifest: Manifest) -> Shares:
    """Of all experts; those of a layer are stored alike."""
    stored = [manifest.stored(layer) for layer in manifest.geometry.moe_layers]
    return _shares(
        (formats[name], math.prod(shape))
        for formats in stored
        for name, shape in expert_shapes(manifest.geometry, formats).items()
    )


def dense_shares(manifest: Manifest) -> Shares:
    """Of the matrices that every row passes, without embeddings and head."""
    shapes, apart = manifest.geometry.dense_shapes(), {"embed", "head"}
    return _shares(
        (manifest.dense_stored(name), math.prod(shape))
        for name, shape in shapes.items()
        if manifest.geometry.is_quantisable(name) and name not in apart
    )


def head_format(manifest: Manifest) -> str:
    """Of the head, which may be the embeddings."""
    return _measured_as(manifest.dense_stored("embed" if manifest.geometry.tie_word_embeddings else "head"))


def formats_of(manifest: Manifest) -> list[str]:
    """Every format that rows are multiplied by, each once."""
    return list(dict.fromkeys([*expert_shares(manifest), *dense_shares(manifest), head_format(manifest)]))


def _shares(parts: Iterable[tuple[str, int]]) -> Shares:
    counts: Counter[str] = Counter()
    for stored_as, count in parts:
        counts[_measured_as(stored_as)] += count
    return {stored_as: count / counts.total() for stored_as, count in counts.items()}


def _measured_as(stored_as: str) -> str:
    """The format that is measured: gathering columns takes little, compared with the product."""
    return stored_as.removesuffix(":ordered")
