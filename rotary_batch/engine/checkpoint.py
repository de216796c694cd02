"""A Hugging Face Mixtral checkpoint on disk: config.json and safetensors, single or sharded.

Knows both namings of the tensors and checks every header and shape before a byte is allocated; knows
nothing of packs.  Weights are copied in small pieces: a mapped shard would count as our memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import DTYPE_NBYTES, Geometry

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
PIECE_NBYTES = 8 * 2**20
_MAX_HEADER_NBYTES = 100 * 10**6  # the limit of the safetensors format
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


class TensorPlace(NamedTuple):
    """Where the bytes of one tensor lie."""

    path: Path
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]

    def part(self, index: int, shape: tuple[int, ...]) -> TensorPlace:
        """The `index`-th run of a tensor that holds several of `shape` one after another."""
        nbytes = math.prod(shape) * DTYPE_NBYTES[self.dtype]
        return TensorPlace(self.path, self.offset + index * nbytes, nbytes, self.dtype, shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked checkpoint: every tensor is there, in the right shape."""

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
    geometry = Geometry.from_config(_json(model_dir / "config.json", "a checkpoint needs its config.json"))
    if not (model_dir / "tokenizer.json").is_file():
        raise ModelError(f"{model_dir / 'tokenizer.json'}: no such file; a model needs its tokenizer.json")
    found = _tensors(model_dir)
    dense = {name: _take(found, model_dir, _hf_name(name), shape) for name, shape in geometry.dense_shapes().items()}
    experts = {key: _expert(found, model_dir, geometry, key) for key in geometry.expert_keys()}
    dtypes = {place.dtype for places in experts.values() for place in places}
    if len(dtypes) != 1:
        raise ModelError(f"{model_dir}: experts in several types ({', '.join(sorted(dtypes))}); one type is supported")
    return Checkpoint(model_dir, replace(geometry, dtype=dtypes.pop()), dense, experts)


def _hf_name(name: str) -> str:
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    _, layer, part = name.split(".")
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}"


def _expert(
    found: dict[str, TensorPlace], model_dir: Path, geometry: Geometry, key: ExpertKey
) -> tuple[TensorPlace, ...]:
    up, down = geometry.expert_shapes["w1"], geometry.expert_shapes["w2"]
    fused = f"model.layers.{key.layer}.mlp.experts."
    if fused + "gate_up_proj" in found:  # [experts, 2 * intermediate, hidden], as transformers 5 keeps it in memory
        both = _take(found, model_dir, fused + "gate_up_proj", (geometry.num_experts, 2 * up[0], up[1]))
        w2 = _take(found, model_dir, fused + "down_proj", (geometry.num_experts, *down))
        return both.part(2 * key.expert, up), both.part(2 * key.expert + 1, up), w2.part(key.expert, down)
    stem = f"model.layers.{key.layer}.block_sparse_moe.experts.{key.expert}."
    shapes = geometry.expert_shapes.items()
    return tuple(_take(found, model_dir, f"{stem}{name}.weight", shape) for name, shape in shapes)


def _take(found: dict[str, TensorPlace], model_dir: Path, name: str, shape: tuple[int, ...]) -> TensorPlace:
    place = found.get(name) or found.get(name.replace("block_sparse_moe.gate", "mlp.gate"))
    if place is None:
        raise ModelError(f"{model_dir}: tensor {name} is in none of its files; is a shard missing?")
    if place.shape != shape:
        raise ModelError(f"{place.path}: tensor {name} has shape {list(place.shape)}; config.json says {list(shape)}")
    return place


def _tensors(model_dir: Path) -> dict[str, TensorPlace]:
    index = model_dir / INDEX_NAME
    names = {SINGLE_NAME}
    if index.is_file():
        names = set(_json(index, "a sharded checkpoint needs it").get("weight_map", {}).values())
    found: dict[str, TensorPlace] = {}
    for name in sorted(names):
        if Path(name).name != name:
            raise ModelError(f"{index}: shard name {name!r} leaves the directory")
        found |= read_header(model_dir / name)
    return found


def read_header(path: Path) -> dict[str, TensorPlace]:
    """The tensors of one safetensors file, checked against its size.  Raises ModelError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            if length > min(_MAX_HEADER_NBYTES, size - 8):
                raise ModelError(f"{path}: truncated or not safetensors: its header claims {length} bytes of {size}")
            header = json.loads(file.read(length))
        return {name: _place(path, name, row, 8 + length, size) for name, row in header.items() if name[:2] != "__"}
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; is a shard missing?") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: damaged safetensors header: {error}") from error


def _place(path: Path, name: str, row: dict[str, Any], base: int, size: int) -> TensorPlace:
    begin, end = row["data_offsets"]
    shape, dtype = tuple(row["shape"]), row["dtype"]
    if dtype not in DTYPE_NBYTES:
        raise ModelError(f"{path}: tensor {name} is of type {dtype}; supported are {', '.join(DTYPE_NBYTES)}")
    if end - begin != math.prod(shape) * DTYPE_NBYTES[dtype]:
        raise ModelError(f"{path}: tensor {name} has {end - begin} bytes, which is not {list(shape)} of {dtype}")
    if begin < 0 or base + end > size:
        raise ModelError(f"{path}: truncated: tensor {name} ends at byte {base + end} of {size}; fetch the file again")
    return TensorPlace(path, base + begin, end - begin, dtype, shape)


def pieces(place: TensorPlace) -> Iterator[memoryview]:
    """The bytes of a tensor in runs of at most PIECE_NBYTES; each run is valid until the next."""
    buffer = memoryview(bytearray(min(PIECE_NBYTES, place.nbytes)))
    descriptor = os.open(place.path, os.O_RDONLY)
    try:
        done = 0
        while done < place.nbytes:
            piece = buffer[: min(PIECE_NBYTES, place.nbytes - done)]
            count = os.preadv(descriptor, [piece], place.offset + done)
            if count == 0:
                raise ModelError(f"{place.path}: ends at byte {place.offset + done}; fetch the file again")
            yield piece[:count]
            done += count
    finally:
        os.close(descriptor)


def _json(path: Path, why: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; {why}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: not a JSON object")
    return found
