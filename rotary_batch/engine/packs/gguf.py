"""GGUF files: typed keys and the places of tensors, from one file or from all parts of a split one.

The format is specified in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.  Only the head of a file is read,
and everything in it is checked first: nothing that it claims is allocated before the file is known to hold it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rotary_batch.engine.packs.gguf_head import REMEDY, Head, Value
from rotary_batch.engine.packs.tensors import TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.ggml_types import BLOCK_TYPES
from rotary_batch.model.tables import open_regular, shown

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_NAME_CHARACTERS = 256
_MAX_DIMENSIONS = 4
_MAX_PARTS = 1_000
_PART_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_TYPE_NAMES = {row.number: name for name, row in BLOCK_TYPES.items()}
# fmt: off
_UNREAD_TYPES = {
    4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
    22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 31: "Q4_0_4_4", 32: "Q4_0_4_8",
    33: "Q4_0_8_8", 34: "TQ1_0", 35: "TQ2_0", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8", 40: "NVFP4",
    41: "Q1_0",
}
# fmt: on


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a GGUF file says: `tensors` in torch's order of dimensions, with the name of a block type as `dtype`."""

    path: Path  # of the first part
    keys: Mapping[str, Value]
    tensors: dict[str, TensorPlace]


def read_gguf(path: Path) -> GgufFile:
    """Read the head of a GGUF file; of a split one, any part leads to all.  Raises ModelError."""
    first, parts = path, [_read_part(path)]
    if (count := _split(parts[0], path, "count", 1)) > 1:
        paths = _part_paths(path, count)
        first, parts = paths[0], [_read_part(part) for part in paths]
        _check_parts(paths, parts)
    _require_model(first, parts[0].keys)
    tensors: dict[str, TensorPlace] = {}
    for part in parts:
        if twice := sorted(tensors.keys() & part.tensors.keys()):
            raise ModelError(f"{first}: tensor {shown(twice[0])} is in two of its parts; {REMEDY}")
        tensors |= part.tensors
    if not tensors:
        raise ModelError(f"{first}: holds no tensors, only a vocabulary; name the file of the model")
    return GgufFile(first, parts[0].keys, tensors)


def gguf_at(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the one in a folder without safetensors; None without one.

    Raises ModelError for a folder with several models.
    """
    if path.suffix == ".gguf" and not path.is_dir():
        return path
    if any(path.glob("*.safetensors")):
        return None
    names = sorted(entry.name for entry in path.glob("*.gguf") if not entry.name.lower().startswith("mmproj"))
    models = [name for name in names if not (part := _PART_NAME.fullmatch(name)) or int(part[2]) == 1] or names[:1]
    if len(models) > 1:
        raise ModelError(f"{path}: {len(models)} models, such as {models[0]} and {models[1]}; name one of the files")
    return path / models[0] if models else None


def model_name(path: Path) -> str:
    """The name of a file without its ending and the number of its part."""
    part = _PART_NAME.fullmatch(path.name)
    return part[1] if part else path.stem


class _Part(NamedTuple):
    keys: dict[str, Value]
    tensors: dict[str, TensorPlace]


def _read_part(path: Path) -> _Part:
    with open_regular(path, f"is a part missing? {REMEDY}") as file:
        head = Head(file, path)
        _check_version(head, path)
        num_tensors, num_keys = head.whole(), head.whole()
        keys = dict(_keys(head, head.claim(num_keys, 13, "keys")))
        head.claim(num_tensors, 32, "tensors")
        rows = dict(_rows(head, num_tensors))
        base = _aligned(head.at, alignment := _alignment(head, keys))
        return _Part(keys, _places(path, head.size, rows, base, alignment))


def _check_version(head: Head, path: Path) -> None:
    head.require(8)
    magic, version = head.whole("I").to_bytes(4, "little"), head.whole("I")
    if magic != _MAGIC:
        raise ModelError(f"{path}: not a GGUF file: it begins with {shown(magic.decode('latin-1'))}; {REMEDY}")
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise ModelError(f"{path}: a big-endian GGUF file; fetch the little-endian one of this model")
    if version not in _VERSIONS:
        raise ModelError(f"{path}: GGUF version {version}; versions 2 and 3 are read: fetch a newer file of the model")


def _keys(head: Head, count: int) -> Iterator[tuple[str, Value]]:
    seen: set[str] = set()
    for number in range(count):
        head.where = f"key {number + 1} of {count}"
        name = _name(head, seen)
        head.where = f"key {shown(name)}"
        yield name, head.value()


class _Row(NamedTuple):
    """An entry of the table of tensors, as it is in the file."""

    shape: tuple[int, ...]  # slowest dimension first
    type_number: int
    offset: int  # from the beginning of the data


def _rows(head: Head, count: int) -> Iterator[tuple[str, _Row]]:
    seen: set[str] = set()
    for number in range(count):
        head.where = f"tensor {number + 1} of {count}"
        name = _name(head, seen)
        head.where = f"tensor {shown(name)}"
        dimensions = head.whole("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise head.error(f"has {dimensions:,} dimensions, not 1 to {_MAX_DIMENSIONS}")
        shape = tuple(int(length) for length in reversed(head.numbers("Q", dimensions)))
        yield name, _Row(shape, head.whole("I"), head.whole())


def _name(head: Head, seen: set[str]) -> str:
    (name,) = head.strings(1)
    if not 1 <= len(name) <= _MAX_NAME_CHARACTERS:
        raise head.error(f"has a name of {len(name):,} characters, not 1 to {_MAX_NAME_CHARACTERS}")
    if name in seen:
        raise head.error(f"has the name {shown(name)}, which an earlier one has")
    seen.add(name)
    return name


def _alignment(head: Head, keys: Mapping[str, Value]) -> int:
    value = keys.get("general.alignment", 32)
    if type(value) is not int or not 1 <= value <= 2**20 or value & (value - 1):
        head.where = 'key "general.alignment"'
        raise head.error(f"is {shown(value)}, not a power of two")
    return value


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _places(path: Path, size: int, rows: dict[str, _Row], base: int, alignment: int) -> dict[str, TensorPlace]:
    places = {name: _place(path, name, row, base) for name, row in rows.items()}
    for name, place in places.items():
        if (place.offset - base) % alignment:
            raise _tensor_error(path, name, f"begins at byte {place.offset:,}, not at a multiple of {alignment}")
        if place.end > size:
            raise _tensor_error(path, name, f"ends at byte {place.end:,} of {size:,}: the file is truncated")
    for before, after in pairwise(sorted(places.items(), key=lambda item: item[1].offset)):
        if after[1].offset < before[1].end:
            raise _tensor_error(path, before[0], f"overlaps tensor {shown(after[0])}")
    return places


def _place(path: Path, name: str, row: _Row, base: int) -> TensorPlace:
    type_name = _TYPE_NAMES.get(row.type_number)
    if type_name is None:
        known = _UNREAD_TYPES.get(row.type_number, "unknown")
        raise ModelError(
            f"{path}: tensor {shown(name)} is of type {row.type_number} ({known}); types that are read: "
            f"{', '.join(BLOCK_TYPES)}; fetch the model in one of these"
        )
    block = BLOCK_TYPES[type_name]
    if 0 in row.shape:
        raise _tensor_error(path, name, f"has shape {list(row.shape)}")
    if row.shape[-1] % block.columns:
        raise _tensor_error(
            path, name, f"has rows of {row.shape[-1]:,}, not whole blocks of {block.columns} ({type_name})"
        )
    nbytes = math.prod(row.shape[:-1]) * block.row_nbytes(row.shape[-1])
    return TensorPlace(path, base + row.offset, nbytes, type_name, row.shape)


def _tensor_error(path: Path, name: str, fact: str) -> ModelError:
    return ModelError(f"{path}: tensor {shown(name)} {fact}; {REMEDY}")


def _split(part: _Part, path: Path, name: str, default: int) -> int:
    value = part.keys.get(f"split.{name}", default)
    if type(value) is not int or not 0 <= value < 2**31 or (name == "count" and value > _MAX_PARTS):
        raise ModelError(f'{path}: key "split.{name}" is {shown(value)}; {REMEDY}')
    return value


def _part_paths(path: Path, count: int) -> list[Path]:
    match = _PART_NAME.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise ModelError(
            f"{path}: one of {count} parts, but not named NAME-00001-of-{count:05}.gguf; give the parts such names"
        )
    paths = [path.with_name(f"{match[1]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    for number, part in enumerate(paths, 1):
        if not part.exists():
            raise ModelError(f"{part}: part {number} of {count} is missing; fetch it into the same folder")
    return paths


def _check_parts(paths: list[Path], parts: list[_Part]) -> None:
    for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
        found = (_split(part, path, "no", 0), _split(part, path, "count", 1))
        if found != (number, len(parts)):
            raise ModelError(
                f"{path}: says that it is part {found[0] + 1} of {found[1]}, its name that it is part {number + 1} of "
                f"{len(parts)}; {REMEDY}"
            )
    have = sum(len(part.tensors) for part in parts)
    need = _split(parts[0], paths[0], "tensors.count", have)
    if have != need:
        raise ModelError(f"{paths[0]}: its {len(parts)} parts hold {have:,} tensors of {need:,}; {REMEDY}")


def _require_model(path: Path, keys: Mapping[str, Value]) -> None:
    if keys.get("general.type") == "adapter":
        raise ModelError(f"{path}: a LoRA adapter, not a model; name the file of the model that it belongs to")
    if keys.get("general.architecture") == "clip" or keys.get("general.type") == "mmproj":
        raise ModelError(f"{path}: the vision part of a model; name the file of the model itself")
