"""A GGUF file as a checkpoint: every tensor of the description has its place in the file, in the type it has there.

Blocks are copied as they are.  Their rows move where the converter moved them: rows never share a block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.gguf import read_gguf
from rotary_batch.engine.packs.gguf_config import config_from_gguf
from rotary_batch.engine.packs.gguf_head import REMEDY, Value
from rotary_batch.engine.packs.gguf_names import Change, Named, census, gguf_name
from rotary_batch.engine.packs.key_heads import key_head_ranges, num_rows
from rotary_batch.engine.packs.tensors import Source, TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.families import family_of, geometry_of
from rotary_batch.model.families.family import Family
from rotary_batch.model.families.rotation import rotating_rows
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.ggml_types import BLOCK_TYPES, PLAIN_TYPES
from rotary_batch.model.tables import Table, shown

_BY_KEY_HEAD = {"qkvz": ("qkv", "z"), "ba": ("b", "a")}  # tensors of files, and ours that are in them


class GgufModel(NamedTuple):
    """What `Checkpoint` needs to know of a GGUF file."""

    path: Path  # of the first part
    keys: Mapping[str, Value]
    config: bytes  # as a config.json
    geometry: Geometry
    dense: dict[str, Source]
    experts: dict[ExpertKey, dict[str, Source]]
    notes: tuple[str, ...]


def open_gguf(path: Path) -> GgufModel:
    """Match a file with the description that its keys make.  Raises ModelError for what is missing or left over."""
    file = read_gguf(path)
    config = config_from_gguf(file.keys, file.tensors)
    table = Table(config, file.path, REMEDY)
    family = family_of(table)
    geometry = geometry_of(table, family)
    found = census(str(file.keys["general.architecture"]), file.tensors, config)
    tensors = _Tensors(file.path, geometry, family, found.tensors)
    dense = {name: tensors.dense(name, shape) for name, shape in geometry.dense_shapes().items()}
    experts = {key: tensors.expert(key) for key in geometry.expert_keys()}
    tensors.require_all_used()
    matrices = [expert[name] for expert in experts.values() for name in expert if not name.endswith(".bias")]
    plain = {source.dtype for source in matrices if source.stored_as == "bf16"}
    if len(plain) > 1:
        raise ModelError(f"{file.path}: experts in several types ({', '.join(sorted(plain))}); one type is supported")
    by_turns = any(Change.COLUMNS_SWAPPED in named.changes for named in found.tensors.values())
    geometry = replace(geometry, dtype=plain.pop() if plain else geometry.dtype, delta_out_by_turns=by_turns)
    text = json.dumps(config, indent=1).encode()
    return GgufModel(file.path, file.keys, text, geometry, dense, experts, found.notes)


class _Tensors:
    """The tensors of a file by our names, and which of them were used."""

    def __init__(self, path: Path, geometry: Geometry, family: Family, tensors: Mapping[str, Named]) -> None:
        self._path = path
        self._geometry = geometry
        self._family = family
        self._tensors = tensors
        self._unused = dict(tensors)

    def dense(self, name: str, shape: tuple[int, ...]) -> Source:
        """The source of one of our dense tensors."""
        stem, _, part = name.partition(".delta.")
        for together, parts in _BY_KEY_HEAD.items():
            if part in parts and f"{stem}.delta.{together}" in self._tensors:
                return self._by_key_head(f"{stem}.delta.{together}", together, name, shape)
        if name.endswith(".kv_b") and (joined := self._kv_b(name, shape)):
            return joined
        named = self._checked(name, shape)
        values = tuple(change for change in named.changes if change in (Change.PLUS_ONE, Change.MINUS_EXP))
        if order := self._order_of_halves(name, named):
            return Source(shape, (named.place,), _stored_as(named), "rows_to_halves", order)
        swap = named.swap if Change.ROWS_SWAPPED in named.changes else None
        return self._source(name, shape, (named.place,), (swap, *(values or (None,))))

    def _source(
        self, name: str, shape: tuple[int, ...], places: tuple[TensorPlace, ...], changed: tuple[Any, ...]
    ) -> Source:
        """Blocks stay blocks in matrices; whatever is never quantised becomes plain numbers."""
        swap, change = changed
        stored_as = _type_as(places[0].dtype)
        if change is not None or (stored_as != "bf16" and not self._geometry.is_quantisable(name)):
            return Source(shape, places, recipe="numbers", arguments=changed)
        if swap is not None:
            return Source(shape, places, stored_as, "swapped_rows", (swap,))
        return Source(shape, places, stored_as)

    def _by_key_head(self, together: str, parts: str, name: str, shape: tuple[int, ...]) -> Source:
        """Rows of a tensor that has the projections of each key head together."""
        delta = self._geometry.delta
        assert delta is not None, "only layers of linear attention have such names"
        whole = self._checked(together, (num_rows(delta, parts), self._geometry.hidden_size))
        ranges = key_head_ranges(delta, parts, name.rpartition(".")[2])
        places = tuple(whole.place.rows(*one) for one in ranges)
        return self._source(name, shape, places, (None, None))

    def _kv_b(self, name: str, shape: tuple[int, ...]) -> Source | None:
        """kv_b of the halves that the converter makes of it since April 2025; None = it is whole."""
        geometry = self._geometry
        heads, rank = geometry.num_heads, geometry.kv_lora_rank
        k_b, v_b = (name.removesuffix("kv_b") + half for half in ("k_b", "v_b"))
        if name in self._tensors:
            for half in (k_b, v_b):  # some files have these too
                self._unused.pop(half, None)
            return None
        k = self._checked(k_b, (heads, rank, geometry.nope_head_dim))
        v = self._checked(v_b, (heads, geometry.value_head_dim, rank))
        return Source(shape, (k.place, v.place), recipe="kv_b_of_halves")

    def _order_of_halves(self, name: str, named: Named) -> tuple[int, ...]:
        """For rows of q and k that rotate neighbours, by nature or by the converter: arguments of the recipe."""
        if name.removesuffix(".bias").endswith((".q", ".k")) and named.swap is not None:
            return (2 * named.swap.inner, 2 * named.swap.inner, 0)
        return (self._family.adjacent_pairs and rotating_rows(name, self._geometry)) or ()

    def expert(self, key: ExpertKey) -> dict[str, Source]:
        """The sources of an expert's matrices: gate over up as one where they are of one type; then the biases."""
        geometry, shapes = self._geometry, self._geometry.matrix_shapes
        if not geometry.has_router:
            return self._slice(key)
        half = (geometry.intermediate_size, geometry.hidden_size)
        if self._name(key, "gate_up") in self._tensors:
            matrices = {"gate_up": self._one(key, "gate_up", shapes["gate_up"])}
        else:
            matrices = _joined(shapes["gate_up"], self._one(key, "gate", half), self._one(key, "up", half))
        matrices["down"] = self._one(key, "down", shapes["down"])
        return matrices | self._biases(key)

    def _name(self, key: ExpertKey, matrix: str) -> str:
        return f"layers.{key.layer}.experts.{matrix}"

    def _one(self, key: ExpertKey, matrix: str, shape: tuple[int, ...]) -> Source:
        """One matrix of one expert; until April 2024 each was a tensor of its own."""
        alone = f"layers.{key.layer}.experts.{key.expert}.{matrix}"
        if alone in self._tensors:
            named = self._checked(alone, shape)
            return Source(shape, (named.place,), _stored_as(named))
        named = self._checked(self._name(key, matrix), (self._geometry.num_experts, *shape))
        return Source(shape, (named.place.part(key.expert, shape),), _stored_as(named))

    def _biases(self, key: ExpertKey) -> dict[str, Source]:
        geometry = self._geometry
        if not geometry.expert_bias:
            return {}
        gate, up = (self._one(key, f"{name}.bias", (geometry.intermediate_size,)) for name in ("gate", "up"))
        both = Source((2 * geometry.intermediate_size,), gate.places + up.places)
        return {"gate_up.bias": both, "down.bias": self._one(key, "down.bias", (geometry.hidden_size,))}

    def _slice(self, key: ExpertKey) -> dict[str, Source]:
        """Some rows of gate and up of a dense model, and the same columns of down."""
        geometry, shapes = self._geometry, self._geometry.matrix_shapes
        hidden, middle = geometry.hidden_size, geometry.intermediate_size
        whole = middle * geometry.num_experts
        stem, half = f"layers.{key.layer}.ffn", (middle, hidden)
        gate, up = (
            Source(half, (named.place.part(key.expert, half),), _stored_as(named))
            for named in (self._checked(f"{stem}.{name}", (whole, hidden)) for name in ("gate", "up"))
        )
        down = self._checked(f"{stem}.down", (hidden, whole))
        if middle % BLOCK_TYPES[down.place.dtype].columns:
            raise self._error(down, f"has blocks of {down.place.dtype}, which slices of {middle} columns cut through")
        columns = (key.expert * middle, (key.expert + 1) * middle)
        sliced = Source(shapes["down"], (down.place,), _stored_as(down), "columns", columns)
        return _joined(shapes["gate_up"], gate, up) | {"down": sliced}

    def _checked(self, name: str, shape: tuple[int, ...]) -> Named:
        named = self._tensors.get(name)
        if named is None:
            raise ModelError(
                f"{self._path}: tensor {shown(gguf_name(name))} is in none of its parts; fetch the file again, or "
                "another conversion of the model"
            )
        if named.place.shape != shape:
            raise self._error(named, f"has shape {list(named.place.shape)}; the keys say {list(shape)}")
        self._unused.pop(name, None)
        return named

    def _error(self, named: Named, fact: str) -> ModelError:
        return ModelError(
            f"{named.place.path}: tensor {shown(named.theirs)} {fact}; fetch another conversion of the model"
        )

    def require_all_used(self) -> None:
        """Raise ModelError for a tensor that the description has no place for."""
        for named in self._unused.values():
            raise self._error(named, f"is not one that a model of the family {self._geometry.family} has")


def _stored_as(named: Named) -> str:
    return _type_as(named.place.dtype)


def _type_as(type_name: str) -> str:
    return "bf16" if type_name in PLAIN_TYPES else f"ggml:{type_name}"


def _joined(shape: tuple[int, ...], gate: Source, up: Source) -> dict[str, Source]:
    """Gate over up as one matrix, where both are of one type."""
    if gate.places[0].dtype != up.places[0].dtype:
        return {"gate": gate, "up": up}
    return {"gate_up": Source(shape, gate.places + up.places, gate.stored_as)}
