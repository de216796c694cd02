"""A Hugging Face Mixtral checkpoint on disk: config.json and safetensors, single or sharded.

Every header and shape is checked before a byte is allocated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.safetensors_file import read_header
from rotary_batch.engine.packs.tensors import TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import DTYPE_NBYTES, Geometry
from rotary_batch.model.tables import Table, read_object, shown

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_MAX_CONFIG_NBYTES = 2**20
_MAX_INDEX_NBYTES = 64 * 2**20  # 150 bytes for each of 400,000 tensors
_MAX_NAME_CHARACTERS = 200  # of a shard
_REMEDY = "fetch the file again"
_LAYER_NAMES = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "moe_norm": "post_attention_layernorm.weight",
    "router": "block_sparse_moe.gate.weight",
}
_TOP_NAMES = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in which every tensor exists with the right shape."""

    model_dir: Path
    geometry: Geometry
    dense: dict[str, TensorPlace]  # by our own names
    experts: dict[ExpertKey, tuple[TensorPlace, ...]]  # w1, w3, w2

    @property
    def digest(self) -> str:
        """Identifies the source: config, tensor places, and the size and time of every file."""
        files = sorted({place.path for place in self._places()})
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        config = (self.model_dir / "config.json").read_bytes()
        return hashlib.sha256(config + repr(stats).encode()).hexdigest()

    def _places(self) -> Iterator[TensorPlace]:
        yield from self.dense.values()
        for places in self.experts.values():
            yield from places


def open_checkpoint(model_dir: Path) -> Checkpoint:
    """Read the headers of a checkpoint.  Raises ModelError naming the file and the fact."""
    remedy = "fetch the file again, or name another checkpoint"
    path = model_dir / "config.json"
    geometry = Geometry.from_config(Table(read_object(path, _MAX_CONFIG_NBYTES, remedy), path, remedy))
    tensors = _tensors(model_dir)
    dense = {
        name: _checked(tensors, model_dir, _hf_name(name), shape) for name, shape in geometry.dense_shapes().items()
    }
    experts = {key: _expert(tensors, model_dir, geometry, key) for key in geometry.expert_keys()}
    dtypes = {place.dtype for places in experts.values() for place in places}
    if len(dtypes) != 1:
        raise ModelError(f"{model_dir}: experts in several types ({', '.join(sorted(dtypes))}); one type is supported")
    return Checkpoint(model_dir, replace(geometry, dtype=dtypes.pop()), dense, experts)


def cached_pack(model_dir: Path, cache: Path, experts: str) -> Path:
    """Where the pack of a checkpoint is below `cache`, once it is made.  Raises ModelError."""
    return cache / f"{model_dir.resolve().name}-{open_checkpoint(model_dir).digest[:12]}-{experts}"


def _hf_name(name: str) -> str:
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    _, layer, part = name.split(".")
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}"


def _expert(
    tensors: dict[str, TensorPlace], model_dir: Path, geometry: Geometry, key: ExpertKey
) -> tuple[TensorPlace, ...]:
    up, down = geometry.expert_shapes["w1"], geometry.expert_shapes["w2"]
    fused = f"model.layers.{key.layer}.mlp.experts."
    if fused + "gate_up_proj" in tensors:  # [experts, 2 * intermediate, hidden], as transformers 5 keeps it in memory
        both = _checked(tensors, model_dir, fused + "gate_up_proj", (geometry.num_experts, 2 * up[0], up[1]))
        w2 = _checked(tensors, model_dir, fused + "down_proj", (geometry.num_experts, *down))
        return both.part(2 * key.expert, up), both.part(2 * key.expert + 1, up), w2.part(key.expert, down)
    stem = f"model.layers.{key.layer}.block_sparse_moe.experts.{key.expert}."
    shapes = geometry.expert_shapes.items()
    return tuple(_checked(tensors, model_dir, f"{stem}{name}.weight", shape) for name, shape in shapes)


def _checked(tensors: dict[str, TensorPlace], model_dir: Path, name: str, shape: tuple[int, ...]) -> TensorPlace:
    place = tensors.get(name) or tensors.get(name.replace("block_sparse_moe.gate", "mlp.gate"))
    if place is None:
        raise ModelError(f"{model_dir}: tensor {name} is in none of its files; is a shard missing?")
    if place.shape != shape:
        raise ModelError(f"{place.path}: tensor {name} has shape {list(place.shape)}; config.json says {list(shape)}")
    if place.dtype not in DTYPE_NBYTES:
        raise ModelError(
            f"{place.path}: tensor {name} is of type {place.dtype}; supported types: {', '.join(DTYPE_NBYTES)}"
        )
    return place


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
