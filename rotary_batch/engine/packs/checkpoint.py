"""A checkpoint on disk: config.json and safetensors, single or sharded, as Hugging Face publishes them.

Every header and shape is checked before a byte is allocated, and every tensor is accounted for by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.safetensors_file import read_header
from rotary_batch.engine.packs.tensors import Source, TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.families import geometry_of
from rotary_batch.model.families.names import (
    by_key_head,
    expert_spellings,
    first_of,
    fused_spellings,
    plain_name,
    skipped_part,
    spellings,
)
from rotary_batch.model.geometry import DTYPE_NBYTES, Geometry
from rotary_batch.model.manifest import ORIGINAL, Manifest, SlabPlace, stored_in
from rotary_batch.model.slabs import expert_layout
from rotary_batch.model.tables import Table, read_object, shown

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_MAX_CONFIG_NBYTES = 2**20
_MAX_INDEX_NBYTES = 64 * 2**20  # 150 bytes for each of 400,000 tensors
_MAX_NAME_CHARACTERS = 200  # of a shard
_REMEDY = "fetch the file again"
Expert = dict[str, Source]  # by the matrices of a slab: gate_up, or gate and up; down; their biases


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in which every tensor exists with the right shape."""

    model_dir: Path
    geometry: Geometry
    dense: dict[str, Source]  # by our own names
    experts: dict[ExpertKey, Expert]
    notes: tuple[str, ...] = ()  # what of the files is left out

    @property
    def digest(self) -> str:
        """Identifies the source: config, tensor places, and the size and time of every file."""
        files = sorted({place.path for place in self._places()})
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        config = (self.model_dir / "config.json").read_bytes()
        return hashlib.sha256(config + repr(stats).encode()).hexdigest()

    def _places(self) -> Iterator[TensorPlace]:
        for source in (*self.dense.values(), *(part for expert in self.experts.values() for part in expert.values())):
            yield from source.places

    @property
    def layer_formats(self) -> dict[int, dict[str, str]]:
        """How the checkpoint stores each matrix of an expert, by layer."""
        first = {key.layer: expert for key, expert in self.experts.items() if key.expert == 0}
        return {
            layer: {name: source.stored_as for name, source in expert.items() if not name.endswith(".bias")}
            for layer, expert in first.items()
        }

    @property
    def dense_formats(self) -> dict[str, str]:
        """The dense tensors that the checkpoint stores quantised, and how."""
        return {name: source.stored_as for name, source in self.dense.items() if source.stored_as != "bf16"}

    @property
    def is_plain(self) -> bool:
        """Whether nothing is quantised."""
        kinds = {kind for formats in self.layer_formats.values() for kind in formats.values()}
        return kinds == {"bf16"} and not self.dense_formats

    def experts_format(self, wanted: str | None) -> str:
        """How a pack stores the experts.  Raises ModelError: what is quantised is not quantised again."""
        if self.is_plain:
            return wanted or "bf16"
        if wanted not in {None, ORIGINAL}:
            raise ModelError(
                f"{self.model_dir}: its weights are quantised, and are kept as they are; leave out --experts {wanted}"
            )
        return ORIGINAL


def open_checkpoint(model_dir: Path) -> Checkpoint:
    """Read the headers of a checkpoint.  Raises ModelError naming the file and the fact."""
    remedy = "fetch the file again, or name another checkpoint"
    path = model_dir / "config.json"
    geometry = geometry_of(Table(read_object(path, _MAX_CONFIG_NBYTES, remedy), path, remedy))
    files = _Files(model_dir, {plain_name(name): place for name, place in _tensors(model_dir).items()})
    dense = {name: files.dense(geometry, name, shape) for name, shape in geometry.dense_shapes().items()}
    experts = {key: files.expert(geometry, key) for key in geometry.expert_keys()}
    notes = files.left_out(geometry)
    dtypes = {source.dtype for expert in experts.values() for source in expert.values()}
    if len(dtypes) != 1:
        raise ModelError(f"{model_dir}: experts in several types ({', '.join(sorted(dtypes))}); one type is supported")
    return Checkpoint(model_dir, replace(geometry, dtype=dtypes.pop()), dense, experts, notes)


def cached_pack(checkpoint: Checkpoint, cache: Path, experts: str | None) -> Path:
    """Where the pack of a checkpoint is below `cache`, once it is made.  Raises ModelError."""
    name, experts = checkpoint.model_dir.resolve().name, checkpoint.experts_format(experts)
    return cache / f"{name}-{checkpoint.digest[:12]}-{experts}"


def unpacked_manifest(checkpoint: Checkpoint, experts: str | None) -> Manifest:
    """What is known of a pack before it is made: everything but digests.  Raises ModelError."""
    geometry, experts = checkpoint.geometry, checkpoint.experts_format(experts)
    layer_formats = checkpoint.layer_formats if experts == ORIGINAL else {}
    sizes = {
        layer: expert_layout(geometry, stored_in(geometry, experts, layer_formats, layer)).nbytes
        for layer in geometry.moe_layers
    }
    slabs, offset = {}, 0
    for key in geometry.expert_keys():
        slabs[key] = SlabPlace(offset, sizes[key.layer], "")
        offset += sizes[key.layer]
    return Manifest(
        name=checkpoint.model_dir.resolve().name,
        geometry=geometry,
        experts=experts,
        layer_formats=layer_formats,
        dense_formats=checkpoint.dense_formats,
        slabs=slabs,
        dense_sha256="",
        tokenizer_sha256="",
        context_tokens=geometry.max_position,
    )


class _Files:
    """The tensors of a checkpoint by their own names, and which of them were used."""

    def __init__(self, model_dir: Path, tensors: Mapping[str, TensorPlace]) -> None:
        self._model_dir = model_dir
        self._tensors = tensors
        self._unused = dict.fromkeys(tensors)

    def dense(self, geometry: Geometry, name: str, shape: tuple[int, ...]) -> Source:
        """The source of one of our dense tensors."""
        together = by_key_head(name)
        if together is not None and together[0] in self._tensors:
            return self._by_key_head(geometry, name, *together)
        is_conv = name.endswith(".delta.conv")  # of files: [channels, 1, width]
        stored = (shape[0], 1, *shape[1:]) if is_conv else shape
        return Source(shape, (self._plain(self._named(spellings(name)), stored),))

    def _by_key_head(self, geometry: Geometry, name: str, theirs: str, parts: Sequence[str]) -> Source:
        """Rows of a tensor that has the projections of each key head together: those of each part that we want."""
        delta = geometry.delta
        assert delta is not None, "only layers of linear attention have such names"
        values = delta.heads_per_key * delta.value_head_dim
        sizes = {"q": delta.key_head_dim, "k": delta.key_head_dim, "v": values, "z": values}
        sizes |= dict.fromkeys("ba", delta.heads_per_key)
        head_rows = sum(sizes[part] for part in parts)
        whole = self._plain(theirs, (delta.num_key_heads * head_rows, geometry.hidden_size))
        wanted = list(name.rpartition(".")[2])  # qkv, z, b or a
        begins = dict(zip(parts, accumulate((sizes[part] for part in parts), initial=0), strict=False))
        places = tuple(
            whole.rows(head * head_rows + begins[part], head * head_rows + begins[part] + sizes[part])
            for part in wanted
            for head in range(delta.num_key_heads)
        )
        return Source((sum(place.shape[0] for place in places), geometry.hidden_size), places)

    def expert(self, geometry: Geometry, key: ExpertKey) -> Expert:
        """The sources of an expert's matrices."""
        shapes = geometry.matrix_shapes
        if not geometry.has_router:
            return self._slice(geometry, key)
        if fused := first_of(fused_spellings(key.layer, "gate_up"), self._tensors):
            return self._fused(geometry, key, fused)
        middle = geometry.intermediate_size
        gate, up = (
            self._plain(self._named(expert_spellings(*key, name)), (middle, geometry.hidden_size))
            for name in ("gate", "up")
        )
        down = self._plain(self._named(expert_spellings(*key, "down")), shapes["down"])
        return {"gate_up": Source(shapes["gate_up"], (gate, up)), "down": Source(shapes["down"], (down,))}

    def _fused(self, geometry: Geometry, key: ExpertKey, gate_up: str) -> Expert:
        """One tensor has all experts of a layer: [experts, rows, columns]."""
        names = {"gate_up": gate_up, "down": self._named(fused_spellings(key.layer, "down"))}
        return {
            matrix: Source(shape, (self._plain(names[matrix], (geometry.num_experts, *shape)).part(key.expert, shape),))
            for matrix, shape in geometry.matrix_shapes.items()
        }

    def _slice(self, geometry: Geometry, key: ExpertKey) -> Expert:
        """Some rows of gate and up of a dense model, and the same columns of down."""
        shapes, hidden, middle = geometry.matrix_shapes, geometry.hidden_size, geometry.intermediate_size
        whole = middle * geometry.num_experts
        stem = f"layers.{key.layer}.ffn"
        gate, up = (
            self._plain(self._named(spellings(f"{stem}.{name}")), (whole, hidden)).part(key.expert, (middle, hidden))
            for name in ("gate", "up")
        )
        down = self._plain(self._named(spellings(f"{stem}.down")), (hidden, whole))
        columns = (key.expert * middle, (key.expert + 1) * middle)
        return {
            "gate_up": Source(shapes["gate_up"], (gate, up)),
            "down": Source(shapes["down"], (down,), recipe="columns", arguments=columns),
        }

    def _named(self, names: Iterator[str]) -> str:
        """The first of the spellings that a file has.  Raises ModelError when none has any."""
        known = list(names)
        found = first_of(iter(known), self._tensors)
        if found is None:
            raise ModelError(f"{self._model_dir}: tensor {known[0]} is in none of its files; is a shard missing?")
        return found

    def _plain(self, name: str, shape: tuple[int, ...]) -> TensorPlace:
        place = self._tensors[name]
        if place.shape != shape:
            raise ModelError(
                f"{place.path}: tensor {name} has shape {list(place.shape)}; config.json says {list(shape)}"
            )
        if place.dtype not in DTYPE_NBYTES:
            raise ModelError(
                f"{place.path}: tensor {name} is of type {place.dtype}; supported types: {', '.join(DTYPE_NBYTES)}"
            )
        self._unused.pop(name, None)
        return place

    def left_out(self, geometry: Geometry) -> tuple[str, ...]:
        """What the files have besides: parts that this version skips.  Raises ModelError for anything else."""
        counts: dict[str, int] = {}
        for name in self._unused:
            if geometry.tie_word_embeddings and name == "lm_head.weight":
                continue  # a copy of the embeddings
            part = skipped_part(name, geometry)
            if part is None:
                raise ModelError(
                    f"{self._tensors[name].path}: tensor {shown(name)} is not one that {geometry.family} has; the "
                    "checkpoint is of another family, or newer than this version"
                )
            counts[part] = counts.get(part, 0) + 1
        return tuple(f"{part}: {count:,} tensors are left out" for part, count in counts.items())


def _tensors(model_dir: Path) -> dict[str, TensorPlace]:
    index = model_dir / INDEX_NAME
    tensors: dict[str, TensorPlace] = {}
    for name in _shard_names(index) if index.exists() else [SINGLE_NAME]:
        tensors |= read_header(model_dir / name)
    return tensors


def _shard_names(index: Path) -> list[str]:
    table = Table(read_object(index, _MAX_INDEX_NBYTES, _REMEDY), index, _REMEDY)
    names = list(table.mapping("weight_map").values())
    for name in names:
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or not name
            or name.startswith(".")
            or not name.isprintable()
            or len(name) > _MAX_NAME_CHARACTERS
        ):
            raise table.error(f"shard name {shown(name)} must be a plain file name in the same folder")
    return sorted(set(names))
