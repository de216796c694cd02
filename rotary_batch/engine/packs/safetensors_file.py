"""The header of a safetensors file: every entry is checked before a byte is allocated."""

from __future__ import annotations

import math
import os
import struct
from itertools import pairwise
from pathlib import Path

from rotary_batch.engine.packs.tensors import NUMBER_NBYTES, TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import Table, open_regular, parse_object, shown

_MAX_HEADER_NBYTES = 100 * 10**6  # the limit of the safetensors format
_MAX_DIMENSIONS = 8
_MAX_FILE_NBYTES = 2**53

_REMEDY = "fetch the file again"


def read_header(path: Path) -> dict[str, TensorPlace]:
    """The tensors of one safetensors file, by name.  Raises ModelError when one overlaps another or the end."""
    with open_regular(path, f"is a shard missing? {_REMEDY}") as file:
        size = os.fstat(file.fileno()).st_size
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > min(_MAX_HEADER_NBYTES, size - 8):
            raise ModelError(f"{path}: truncated or not safetensors: its header claims {length} bytes of {size}")
        header = parse_object(file.read(length), path, _REMEDY)
    rows = {name: row for name, row in header.items() if not name.startswith("__")}
    places = {name: _place(path, name, row, 8 + length, size) for name, row in rows.items()}
    for before, after in pairwise(sorted(places.items(), key=lambda item: item[1].offset)):
        if after[1].offset < before[1].end:
            raise ModelError(f"{path}: tensors {shown(before[0])} and {shown(after[0])} overlap; {_REMEDY}")
    return places


def _place(path: Path, name: str, row: object, base: int, size: int) -> TensorPlace:
    where = f"{path}: tensor {shown(name)}"
    if not isinstance(row, dict):
        raise ModelError(f"{where} is {shown(row)}, not an object; {_REMEDY}")
    table = Table(row, where, _REMEDY)
    shape, dtype = table.wholes("shape", _MAX_DIMENSIONS, _MAX_FILE_NBYTES), table.text("dtype")
    if dtype not in NUMBER_NBYTES:
        raise ModelError(f"{where} is of type {shown(dtype)}; supported types: {', '.join(NUMBER_NBYTES)}")
    offsets = table.wholes("data_offsets", 2, _MAX_FILE_NBYTES)
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * NUMBER_NBYTES[dtype]:
        raise table.error(f"bytes {list(offsets)} are not {list(shape)} of {dtype}")
    begin, end = offsets
    if base + end > size:
        raise ModelError(f"{path}: truncated: tensor {shown(name)} ends at byte {base + end} of {size}; {_REMEDY}")
    return TensorPlace(path, base + begin, end - begin, dtype, shape)
