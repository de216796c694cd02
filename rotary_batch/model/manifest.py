"""The manifest of a pack: what is in it, where, and the digests of it.

It is written last, so a pack with a manifest is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.config import EXPERT_FORMATS, NUMERICS
from rotary_batch.core import ExpertKey
from rotary_batch.errors import ModelError
from rotary_batch.model.calibration import calibrated
from rotary_batch.model.geometry import MAX_SLABS, MAX_TOKENS, Geometry
from rotary_batch.model.geometry_table import geometry_as_dict, geometry_from_table
from rotary_batch.model.slabs import PAGE_NBYTES, SlabLayout, expert_layout
from rotary_batch.model.tables import Table, read_object, shown

MANIFEST_NAME = "manifest.json"
PACK_FIELDS_NAME = "pack.json"  # in the folder of an adapter: what its author says of the packs that have it
EXPERTS_NAME = "experts.safetensors"
DENSE_NAME = "dense.safetensors"
FORMAT = "rotary-batch pack 1"
DENSE_FORMATS = ("bf16", "int8")
ORIGINAL = "original"  # as the checkpoint has it, where that is quantised
MAX_NBYTES = 64 * 2**20  # of the manifest itself; 2^18 experts take 40 MB
MAX_FILE_NBYTES = 2**53
MAX_NOTES = 64
_SLAB_FIELDS = ("layer", "expert", "offset", "nbytes", "sha256")
EXACT_MAX_NBYTES = 10**9  # packs up to this default to exact numerics


class SlabPlace(NamedTuple):
    """The place of one slab in experts.safetensors, tail padding included."""

    offset: int
    nbytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A pack, described."""

    name: str
    geometry: Geometry
    experts: str  # how slabs are stored (model/slabs.py); original = as the checkpoint has each matrix, quantised
    dense: str = "bf16"  # how attention, embeddings and head are stored: bf16 = the checkpoint's own bits, or int8
    layer_formats: Mapping[int, Mapping[str, str]] = field(default_factory=dict)  # of the matrices, where original
    dense_formats: Mapping[str, str] = field(default_factory=dict)  # of dense tensors that the checkpoint has quantised
    left_out: tuple[str, ...] = ()  # what of the checkpoint's files is not in the pack, in words
    slabs: Mapping[ExpertKey, SlabPlace]
    dense_sha256: str
    tokenizer_sha256: str
    demonstration: bool = False
    job: str | None = None  # that the model was made for, which is its default
    context_tokens: int
    numerics: str | None = None  # that the author of the model would have as its default
    chunk_tokens: int | None = None  # the largest chunk that the model can make sense of
    min_mean_logprob: float | None = None  # prose below this confidence is not shown

    @property
    def slab_nbytes(self) -> int:
        """Bytes of one slot of the ring."""
        return max(place.nbytes for place in self.slabs.values())

    def stored(self, layer: int) -> Mapping[str, str]:
        """How each matrix of this layer's experts is stored."""
        return stored_in(self.geometry, self.experts, self.layer_formats, layer)

    def layout(self, layer: int) -> SlabLayout:
        """The place of each matrix in a slab of this layer."""
        return expert_layout(self.geometry, self.stored(layer))

    def dense_stored(self, name: str) -> str:
        """How a dense tensor is stored."""
        if name in self.dense_formats:
            return self.dense_formats[name]
        return self.dense if self.geometry.is_quantisable(name) else "bf16"

    @property
    def experts_nbytes(self) -> int:
        """Bytes of all slabs."""
        return sum(place.nbytes for place in self.slabs.values())

    @property
    def weights_digest(self) -> str:
        """One digest of every weight; part of each result's key."""
        parts = [
            self.dense_sha256,
            *(f"{key.layer} {key.expert} {p.sha256}" for key, p in sorted(self.slabs.items())),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def default_numerics(self) -> str:
        """What the author says; else exact for small packs, and fast for large ones and for formats that exact numerics
        would unpack at each use.
        """
        if self.numerics is not None:
            return self.numerics
        is_exact = self.experts_nbytes <= EXACT_MAX_NBYTES and self.experts != ORIGINAL
        return "exact" if is_exact else "fast"

    def save(self, pack_dir: Path) -> None:
        """Write it in one piece."""
        slabs = [[key.layer, key.expert, *place] for key, place in sorted(self.slabs.items())]
        table = {"format": FORMAT, **{name: getattr(self, name) for name in _SCALAR_FIELDS}}
        table |= {"geometry": geometry_as_dict(self.geometry), "slabs": slabs}
        if self.experts == ORIGINAL:
            table["layer_formats"] = {str(layer): dict(formats) for layer, formats in self.layer_formats.items()}
        if self.experts == ORIGINAL or self.dense_formats:  # experts alone may have been quantised here
            table["dense_formats"] = dict(self.dense_formats)
        if self.left_out:
            table["left_out"] = list(self.left_out)
        temporary = pack_dir / (MANIFEST_NAME + ".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(table, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(pack_dir / MANIFEST_NAME)

    @classmethod
    def load(cls, pack_dir: Path) -> Manifest:
        """Read and check it; the threshold that the model was calibrated with replaces its own.  Raises ModelError."""
        path = pack_dir / MANIFEST_NAME
        values = read_object(path, MAX_NBYTES, "not a complete pack; make one with `model pack`")
        if values.get("format") != FORMAT:
            pack_format = shown(values.get("format"))
            raise ModelError(f"{path}: format {pack_format}; this version reads {FORMAT!r}; pack the model again")
        table = Table(values, path, "the manifest is damaged; pack the model again")
        geometry = geometry_from_table(table.table("geometry"))
        experts = table.one_of("experts", (*EXPERT_FORMATS, ORIGINAL))
        layer_formats = _layer_formats(table, geometry) if experts == ORIGINAL else {}
        manifest = cls(
            name=table.text("name"),
            geometry=geometry,
            experts=experts,
            dense=table.one_of("dense", DENSE_FORMATS),
            layer_formats=layer_formats,
            dense_formats=_dense_formats(table, geometry) if table.has("dense_formats") else {},
            left_out=table.texts("left_out", MAX_NOTES) if table.has("left_out") else (),
            slabs=_slabs(table, geometry, experts, layer_formats),
            dense_sha256=table.sha256("dense_sha256"),
            tokenizer_sha256=table.sha256("tokenizer_sha256"),
            context_tokens=table.whole("context_tokens", MAX_TOKENS),
            **_author_fields(table),
        )
        threshold = calibrated(pack_dir, manifest.weights_digest)
        return manifest if threshold is None else replace(manifest, min_mean_logprob=threshold)


def _author_fields(table: Table) -> dict[str, Any]:
    """What the author of a model says of its packs."""
    return {
        "demonstration": table.boolean("demonstration"),
        "job": table.text("job") if table.has("job") else None,
        "numerics": table.one_of("numerics", NUMERICS) if table.has("numerics") else None,
        "chunk_tokens": table.whole("chunk_tokens", MAX_TOKENS) if table.has("chunk_tokens") else None,
        "min_mean_logprob": table.finite("min_mean_logprob") if table.has("min_mean_logprob") else None,
    }


def pack_fields(folder: Path) -> dict[str, Any]:
    """The name of a pack and what the author says of it, in the folder of an adapter; empty without that file.

    Raises ModelError.
    """
    table = _pack_table(folder)
    return {"name": table.text("name")} | _author_fields(table) if table else {}


class PackFormats(NamedTuple):
    """What an adapter's author stores experts and the dense part of a pack in; None = as the checkpoint has them."""

    experts: str | None = None
    dense: str = "bf16"


def pack_formats(folder: Path) -> PackFormats:
    """As PACK_FIELDS_NAME in the folder of an adapter has it.  Raises ModelError."""
    table = _pack_table(folder)
    if table is None:
        return PackFormats()
    return PackFormats(
        experts=table.one_of("experts", EXPERT_FORMATS) if table.has("experts") else None,
        dense=table.one_of("dense", DENSE_FORMATS) if table.has("dense") else "bf16",
    )


def _pack_table(folder: Path) -> Table | None:
    path = folder / PACK_FIELDS_NAME
    if not path.exists():
        return None
    remedy = "fetch the adapter again, or delete this file"
    return Table(read_object(path, MAX_NBYTES, remedy), path, remedy)


def stored_in(
    geometry: Geometry, experts: str, layer_formats: Mapping[int, Mapping[str, str]], layer: int
) -> Mapping[str, str]:
    """How each matrix of a layer's experts is stored, in a pack of this format."""
    return layer_formats[layer] if experts == ORIGINAL else dict.fromkeys(geometry.matrix_shapes, experts)


def _layer_formats(table: Table, geometry: Geometry) -> dict[int, dict[str, str]]:
    """The formats of the matrices in each layer that has experts."""
    layers = table.table("layer_formats")
    formats = {}
    for layer in geometry.moe_layers:
        row = layers.table(str(layer))
        names = ("gate_up", "down") if row.has("gate_up") else ("gate", "up", "down")
        formats[layer] = {name: row.text(name) for name in names}
    return formats


def _dense_formats(table: Table, geometry: Geometry) -> dict[str, str]:
    part, shapes = table.table("dense_formats"), geometry.dense_shapes()
    return {name: part.text(name) for name in table.mapping("dense_formats") if name in shapes}


def _slabs(
    table: Table, geometry: Geometry, experts: str, layer_formats: Mapping[int, Mapping[str, str]]
) -> dict[ExpertKey, SlabPlace]:
    """Exactly one place for each expert, each as long as its layout, on pages and not across one another."""

    def layer_nbytes(layer: int) -> int:
        return expert_layout(geometry, stored_in(geometry, experts, layer_formats, layer)).nbytes

    sizes = table.explained(lambda: {layer: layer_nbytes(layer) for layer in geometry.moe_layers})
    slabs = dict(_slab(table, row, sizes) for row in table.rows("slabs", MAX_SLABS))
    if missing := [key for key in geometry.expert_keys() if key not in slabs]:
        raise table.error(f"the slab of layer {missing[0].layer} expert {missing[0].expert} is missing")
    if len(slabs) != len(geometry.moe_layers) * geometry.num_experts:
        raise table.error(f"{len(slabs):,} slabs for {len(sizes)} layers of {geometry.num_experts} experts")
    # Experts may share a slab (benchmarks do); two slabs never overlap in part.
    places = sorted({(place.offset, place.nbytes) for place in slabs.values()})
    if any(after[0] < before[0] + before[1] for before, after in pairwise(places)):
        raise table.error("two slabs overlap")
    return slabs


def _slab(table: Table, row: object, sizes: Mapping[int, int]) -> tuple[ExpertKey, SlabPlace]:
    if not isinstance(row, list) or len(row) != len(_SLAB_FIELDS):
        raise table.error(f"a slab is {shown(row)}, not a list of {len(_SLAB_FIELDS)}")
    fields = table.part("slabs", dict(zip(_SLAB_FIELDS, row, strict=True)))
    key = ExpertKey(fields.whole("layer", MAX_SLABS, least=0), fields.whole("expert", MAX_SLABS, least=0))
    slab_nbytes = sizes.get(key.layer)
    place = SlabPlace(
        fields.whole("offset", MAX_FILE_NBYTES, least=0),
        fields.whole("nbytes", MAX_FILE_NBYTES),
        fields.sha256("sha256"),
    )
    if place.nbytes != slab_nbytes or place.offset % PAGE_NBYTES:
        wanted = f"a slab has {slab_nbytes:,}, on a page of its own" if slab_nbytes else "this layer has no experts"
        raise fields.error(f"{place.nbytes:,} bytes at {place.offset:,}; {wanted}")
    return key, place


_SCALAR_FIELDS = (
    "name",
    "experts",
    "dense",
    "dense_sha256",
    "tokenizer_sha256",
    "demonstration",
    "job",
    "context_tokens",
    "chunk_tokens",
    "numerics",
    "min_mean_logprob",
)
