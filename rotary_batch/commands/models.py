"""`model info`: what a pack holds, or what the pack of a checkpoint would hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.packs import described_pack
from rotary_batch.config import Settings
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.model.slabs import expert_shapes, stored_nbytes


def info(model: Path | None) -> dict[str, Any]:
    """What a pack holds; of a checkpoint or a GGUF file, what its pack would hold; None = the default model.

    Raises ModelError.
    """
    if model is None:
        pack, manifest = described_pack(Settings())
        is_packed = (pack / MANIFEST_NAME).is_file()
        return _facts(pack, manifest) | {
            "is_packed": is_packed,
            "weights_digest": manifest.weights_digest if is_packed else None,
        }
    if (model / MANIFEST_NAME).is_file():
        manifest = Manifest.load(model)
        return _facts(model, manifest) | {"is_packed": True, "weights_digest": manifest.weights_digest}
    from rotary_batch.engine.packs.checkpoint import open_checkpoint, unpacked_manifest  # headers only, without torch

    manifest = unpacked_manifest(open_checkpoint(model), None)
    return _facts(model, manifest) | {"is_packed": False, "weights_digest": None}


def require_pack(model: Path) -> None:
    """Raise ModelError, which says what to do, for a checkpoint: it has no digests to compare."""
    if not (model / MANIFEST_NAME).is_file():
        raise ModelError(
            f"{model}: a checkpoint, which has no digests to compare; make a pack of it with "
            f"`rotary-batch model pack {model} PACK`, then verify the folder PACK"
        )


def _facts(model: Path, manifest: Manifest) -> dict[str, Any]:
    geometry = manifest.geometry
    return {
        "name": manifest.name,
        "path": str(model),
        "family": geometry.family,
        "experts": manifest.experts,
        "dtype": geometry.dtype,
        "layers": geometry.num_layers,
        "experts_per_layer": geometry.num_experts,
        "top_k": geometry.top_k,
        "hidden_size": geometry.hidden_size,
        "intermediate_size": geometry.intermediate_size,
        "vocab_size": geometry.vocab_size,
        "context_tokens": manifest.context_tokens,
        "slab_nbytes": manifest.slab_nbytes,
        "experts_nbytes": manifest.experts_nbytes,
        "numerics": manifest.default_numerics,
        "demonstration": manifest.demonstration,
        "min_mean_logprob": manifest.min_mean_logprob,
        "formats": _formats(manifest),
        "notes": list(manifest.left_out),
    }


class _Stored(NamedTuple):
    """A matrix of one layer, or the same one of all experts of a layer."""

    name: str  # without its layer
    stored_as: str
    layer: int | None
    nbytes: int


def _formats(manifest: Manifest) -> list[dict[str, Any]]:
    """How matrices are stored: a row for each name and format, with the layers that have it."""
    rows = sorted([*_dense(manifest), *_experts(manifest)], key=lambda one: one[:2])
    grouped = [(key, list(group)) for key, group in groupby(rows, key=lambda one: one[:2])]
    return [
        {
            "matrix": name,
            "stored_as": stored_as,
            "layers": ranges([one.layer for one in group if one.layer is not None]),
            "nbytes": sum(one.nbytes for one in group),
        }
        for (name, stored_as), group in grouped
    ]


def _dense(manifest: Manifest) -> Iterator[_Stored]:
    geometry = manifest.geometry
    for name, shape in geometry.dense_shapes().items():
        if geometry.is_quantisable(name):
            stored_as = manifest.dense_stored(name)
            _, _, after = name.partition("layers.")
            layer, _, part = after.partition(".")
            nbytes = stored_nbytes(stored_as, shape[0], math.prod(shape[1:]), geometry.dtype)
            yield _Stored(part or name, stored_as, int(layer) if layer else None, nbytes)


def _experts(manifest: Manifest) -> Iterator[_Stored]:
    geometry = manifest.geometry
    stem = "experts" if geometry.has_router else "ffn"
    for layer in geometry.moe_layers:
        stored = manifest.stored(layer)
        for name, (rows, columns) in expert_shapes(geometry, stored).items():
            nbytes = geometry.num_experts * stored_nbytes(stored[name], rows, columns, geometry.dtype)
            yield _Stored(f"{stem}.{name}", stored[name], layer, nbytes)


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as people write them: `0-3, 7`."""
    runs = [
        [number for _, number in run]
        for _, run in groupby(enumerate(numbers), key=lambda place_number: place_number[1] - place_number[0])
    ]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
