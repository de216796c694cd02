"""A checkpoint as Hugging Face publishes it: config.json and safetensors, single or sharded, plain or quantised.

Every header and shape is checked before a byte is allocated, and every tensor is accounted for by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.key_heads import key_head_ranges, num_rows
from rotary_batch.engine.packs.quantised.method import CODE_SUFFIXES, UNUSED_SUFFIXES, read_method
from rotary_batch.engine.packs.quantised.mxfp4 import fused_matrix
from rotary_batch.engine.packs.quantised.source import Method, QuantisedMatrix, RowOrder
from rotary_batch.engine.packs.quantised.sources import (
    dequantised_source,
    expert_sources,
    matrix_source,
    require_alike,
    require_zeros,
    slice_sources,
)
from rotary_batch.engine.packs.safetensors_file import read_header
from rotary_batch.engine.packs.tensors import Expert, Source, TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.families import family_of, geometry_of
from rotary_batch.model.families.family import Family
from rotary_batch.model.families.names import (
    by_key_head,
    expert_spellings,
    first_of,
    fused_spellings,
    joined_parts,
    joined_spellings,
    plain_name,
    skipped_part,
    spellings,
)
from rotary_batch.model.families.rotation import rotating_rows
from rotary_batch.model.geometry import DTYPE_NBYTES, Geometry
from rotary_batch.model.tables import Table, parse_object, read_object, read_regular, shown
from rotary_batch.sizes import count

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_MAX_CONFIG_NBYTES = 2**20
_MAX_INDEX_NBYTES = 64 * 2**20  # 150 bytes for each of 400,000 tensors
_MAX_NAME_CHARACTERS = 200  # of a shard
_REMEDY = "fetch the file again"
_Ranges = Sequence[tuple[int, int]]  # the first row, and the one after the last


class FolderModel(NamedTuple):
    """What a folder holds, under our names."""

    config: bytes  # its config.json
    geometry: Geometry
    dense: dict[str, Source]
    experts: dict[ExpertKey, Expert]
    notes: tuple[str, ...]  # what of the files is left out


def open_folder(model_dir: Path) -> FolderModel:
    """Match the tensors of a folder with what its config.json describes.  Raises ModelError."""
    remedy = "fetch the file again, or name another checkpoint"
    path = model_dir / "config.json"
    config = read_regular(path, _MAX_CONFIG_NBYTES, remedy)
    table = Table(parse_object(config, path, remedy), path, remedy)
    family = family_of(table)
    geometry = geometry_of(table, family)
    tensors = {plain_name(name): place for name, place in _places(model_dir).items()}
    files = _Tensors(model_dir, tensors, geometry, family, read_method(model_dir, table, tensors))
    dense = {name: files.dense(name, shape) for name, shape in geometry.dense_shapes().items()}
    experts = {key: files.expert(key) for key in geometry.expert_keys()}
    notes = files.left_out()
    matrices = (source for expert in experts.values() for name, source in expert.items() if not name.endswith(".bias"))
    dtypes = {source.dtype for source in matrices if source.stored_as == "bf16"} or {dense["norm"].dtype}
    if len(dtypes) != 1:
        raise ModelError(f"{model_dir}: experts in several types ({', '.join(sorted(dtypes))}); one type is supported")
    require_alike(model_dir, experts)
    return FolderModel(config, replace(geometry, dtype=dtypes.pop()), dense, experts, notes)


class _Tensors:
    """The tensors of a checkpoint by their own names, and which of them were used."""

    def __init__(
        self,
        model_dir: Path,
        tensors: Mapping[str, TensorPlace],
        geometry: Geometry,
        family: Family,
        method: Method | None,
    ) -> None:
        self._model_dir = model_dir
        self._tensors = tensors
        self._geometry = geometry
        self._dense_shapes = geometry.dense_shapes()
        self._family = family
        self._method = method
        self._quantised: set[str] = set()  # modules
        self._unused = dict.fromkeys(tensors)

    def dense(self, name: str, shape: tuple[int, ...]) -> Source:
        """The source of one of our dense tensors."""
        if (matrix := self._quantised_matrix(spellings(name), shape)) is not None:
            return self._dense_matrix(name, matrix, ())
        whole = (self._by_key_head(name) or self._joined(name, shape)) if not self._has_any(spellings(name)) else None
        if whole is not None:
            return self._some_rows(name, *whole)
        return self._plain_source(name, [self._plain(self._named(spellings(name)), shape)])

    def _has_any(self, names: Iterator[str]) -> bool:
        return first_of(names, self._tensors) is not None

    def _some_rows(self, name: str, theirs: str, shape: tuple[int, ...], ranges: _Ranges) -> Source:
        """Rows of a tensor that has several of ours."""
        if (matrix := self._quantised_matrix(iter([theirs]), shape)) is not None:
            return self._dense_matrix(name, matrix, ranges)
        whole = self._plain(theirs, shape)
        return self._plain_source(name, [whole.rows(begin, end) for begin, end in ranges])

    def _plain_source(self, name: str, places: Sequence[TensorPlace]) -> Source:
        shape = (sum(place.shape[0] for place in places), *places[0].shape[1:])
        halves = self._halves(name)
        return Source(shape, tuple(places), "bf16", *(("rows_to_halves", halves) if halves else ()))

    def _dense_matrix(self, name: str, matrix: QuantisedMatrix, ranges: _Ranges) -> Source:
        """A quantised matrix; one that is never quantised, such as a router, becomes float32."""
        rows = RowOrder(tuple(ranges), self._halves(name))
        return matrix_source(matrix, rows) if self._geometry.is_quantisable(name) else dequantised_source(matrix, rows)

    def _halves(self, name: str) -> tuple[int, int, int] | None:
        """What the recipe rows_to_halves needs, for the rows of q and k where pairs of neighbours rotate."""
        return rotating_rows(name, self._geometry) if self._family.adjacent_pairs else None

    def _by_key_head(self, name: str) -> tuple[str, tuple[int, ...], _Ranges] | None:
        """The tensor that has the projections of each key head together, its shape, and the rows of those we want."""
        found, geometry, delta = by_key_head(name), self._geometry, self._geometry.delta
        if found is None or delta is None or not self._has(found[0]):
            return None
        theirs, parts = found
        ranges = key_head_ranges(delta, parts, name.rpartition(".")[2])
        return theirs, (num_rows(delta, parts), geometry.hidden_size), ranges

    def _joined(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...], _Ranges] | None:
        """The tensor that has several of ours one above the other, its shape, and the rows of ours."""
        for theirs, at in joined_spellings(name):
            if self._has(theirs):
                layer = name.split(".", 2)[1]
                rows = [self._dense_shapes[f"layers.{layer}.{part}"][0] for part in joined_parts(theirs)]
                return theirs, (sum(rows), *shape[1:]), [(sum(rows[:at]), sum(rows[: at + 1]))]
        return None

    def _has(self, theirs: str) -> bool:
        """Whether a tensor is there, plain or quantised."""
        return theirs in self._tensors or any(theirs.replace(".weight", one) in self._tensors for one in CODE_SUFFIXES)

    def expert(self, key: ExpertKey) -> Expert:
        """The sources of an expert's matrices."""
        geometry = self._geometry
        half = (geometry.intermediate_size, geometry.hidden_size)
        if not geometry.has_router:
            return self._slice(key)
        if fused := first_of(fused_spellings(key.layer, "gate_up"), self._tensors):
            return self._interleaved(key, fused) if self._family.interleaved_experts else self._fused(key, fused)
        if mxfp4 := self._fused_mxfp4(key):
            return mxfp4
        gate, up = (self._matrix(expert_spellings(*key, name), half) for name in ("gate", "up"))
        return expert_sources(gate, up, self._matrix(expert_spellings(*key, "down"), geometry.matrix_shapes["down"]))

    def _fused(self, key: ExpertKey, gate_up: str) -> Expert:
        """One tensor has all experts of a layer: [experts, rows, columns]."""
        names = {"gate_up": gate_up, "down": self._named(fused_spellings(key.layer, "down"))}
        return {
            matrix: Source(shape, (self._of_expert(names[matrix], key, shape),))
            for matrix, shape in self._geometry.matrix_shapes.items()
        }

    def _interleaved(self, key: ExpertKey, gate_up: str) -> Expert:
        """As gpt-oss has them: [experts, columns, rows] with gate and up in turn, and biases."""
        down = self._named(fused_spellings(key.layer, "down"))
        expert = {}
        for matrix, name, recipe in (("gate_up", gate_up, "even_then_odd_columns"), ("down", down, "transpose")):
            rows, columns = self._geometry.matrix_shapes[matrix]
            expert[matrix] = Source((rows, columns), (self._of_expert(name, key, (columns, rows)),), recipe=recipe)
        return expert | self._biases(key, gate_up, down)

    def _biases(self, key: ExpertKey, gate_up: str, down: str) -> Expert:
        biases = {}
        for matrix, name, recipe in (("gate_up", gate_up, "even_then_odd"), ("down", down, "stack")):
            if size := self._geometry.expert_bias_sizes.get(matrix):
                place = self._of_expert(f"{name}_bias", key, (size,))
                biases[f"{matrix}.bias"] = Source((size,), (place,), recipe=recipe)
        return biases

    def _fused_mxfp4(self, key: ExpertKey) -> Expert | None:
        """As gpt-oss has them: rows of gate and up in turn."""
        geometry, shapes = self._geometry, self._geometry.matrix_shapes
        half = (geometry.intermediate_size, geometry.hidden_size)
        names = {matrix: next(fused_spellings(key.layer, matrix)) for matrix in shapes}
        takes = (("gate_up", half, 0, 2), ("gate_up", half, 1, 2), ("down", shapes["down"], 0, 1))
        found = [
            fused_matrix(self._tensors, names[matrix], (key.expert, geometry.num_experts), shape, rows)
            for matrix, shape, *rows in takes
        ]
        if None in found:
            return None
        gate, up, down = (self._used(one) for one in found if one)
        return expert_sources(gate, up, down) | self._biases(key, names["gate_up"], names["down"])

    def _of_expert(self, name: str, key: ExpertKey, shape: tuple[int, ...]) -> TensorPlace:
        """One expert's part of a tensor that has all of a layer."""
        whole = self._plain(name, (self._geometry.num_experts, *shape))
        return whole.part(key.expert, shape)

    def _slice(self, key: ExpertKey) -> Expert:
        """Some rows of gate and up of a dense model, and the same columns of down."""
        hidden, middle = self._geometry.hidden_size, self._geometry.intermediate_size
        whole, stem = middle * self._geometry.num_experts, f"layers.{key.layer}.ffn"
        gate, up = (self._matrix(spellings(f"{stem}.{name}"), (whole, hidden)) for name in ("gate", "up"))
        down = self._matrix(spellings(f"{stem}.down"), (hidden, whole))
        return slice_sources(gate, up, down, key.expert * middle, (key.expert + 1) * middle)

    def _matrix(self, names: Iterator[str], shape: tuple[int, int]) -> QuantisedMatrix | TensorPlace:
        """A matrix as the checkpoint has it.  Raises ModelError when it is in none of the files."""
        known = list(names)
        return self._quantised_matrix(iter(known), shape) or self._plain(self._named(iter(known)), shape)

    def _quantised_matrix(self, names: Iterator[str], shape: tuple[int, ...]) -> QuantisedMatrix | None:
        """The matrix of the first of these modules that is quantised."""
        if self._method is None or len(shape) != 2:
            return None
        modules = (name.removesuffix(".weight") for name in names)
        found = (self._method.matrix(self._tensors, module, (shape[0], shape[1])) for module in modules)
        return next((self._used(matrix) for matrix in found if matrix), None)

    def _used(self, matrix: QuantisedMatrix) -> QuantisedMatrix:
        self._quantised.add(matrix.name)
        for name in matrix.tensor_names:
            self._unused.pop(name, None)
        return matrix

    def _named(self, names: Iterator[str]) -> str:
        """The first of the spellings that a file has.  Raises ModelError when none has any."""
        known = list(names)
        found = first_of(iter(known), self._tensors)
        if found is None:
            raise ModelError(f"{self._model_dir}: tensor {known[0]} is in none of its files; is a shard missing?")
        return found

    def _plain(self, name: str, shape: tuple[int, ...]) -> TensorPlace:
        if name not in self._tensors:
            raise ModelError(f"{self._model_dir}: tensor {name} is in none of its files; is a shard missing?")
        place = self._tensors[name]
        if _without_ones(place.shape) != _without_ones(shape):
            raise ModelError(
                f"{place.path}: tensor {name} has shape {list(place.shape)}; config.json says {list(shape)}"
            )
        if place.dtype not in DTYPE_NBYTES:
            raise ModelError(
                f"{place.path}: tensor {name} is of type {place.dtype}; supported types: {', '.join(DTYPE_NBYTES)}"
            )
        self._unused.pop(name, None)
        return place._replace(shape=shape)

    def left_out(self) -> tuple[str, ...]:
        """What the files have besides: parts that this version skips.  Raises ModelError for anything else."""
        geometry, counts = self._geometry, dict[str, int]()
        for name in self._unused:
            if geometry.tie_word_embeddings and name == "lm_head.weight":
                continue  # a copy of the embeddings
            if self._method and name.endswith(UNUSED_SUFFIXES):
                continue
            if name.endswith(".bias") and name.removesuffix(".bias") in self._quantised:
                require_zeros(name, self._tensors[name])
                continue  # AutoGPTQ wrote one for every module
            part = skipped_part(name, geometry)
            if part is None:
                raise ModelError(
                    f"{self._tensors[name].path}: tensor {shown(name)} is not one that {geometry.family} has; the "
                    "checkpoint is of another family, or newer than this version"
                )
            counts[part] = counts.get(part, 0) + 1
        return tuple(f"{part}: {count(number, 'tensor', 'tensors')} not read" for part, number in counts.items())


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A bias may be stored as one row, a convolution with one channel for each group."""
    return tuple(size for size in shape if size != 1)


def _places(model_dir: Path) -> dict[str, TensorPlace]:
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
