"""GGUF files for tests: real ones by the reference writer, hostile ones byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from rotary_batch.model.ggml_types import BLOCK_TYPES

Key = tuple[str, int, bytes]  # name, type, value
Row = tuple[str, Sequence[int], int, int]  # name, dimensions with the fastest first, type, offset


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def raw(
    keys: Sequence[Key] = (),
    rows: Sequence[Row] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: bytes = struct.pack("<I", 3),
    num_keys: int | None = None,
    num_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A file as its parts say, however wrong they are."""
    head = magic + version
    head += struct.pack(
        "<QQ", *(len(rows) if num_tensors is None else num_tensors, len(keys) if num_keys is None else num_keys)
    )
    for name, kind, value in keys:
        head += string(name) + struct.pack("<I", kind) + value
    for name, dimensions, kind, offset in rows:
        head += string(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        head += struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % alignment) + data


ARCHITECTURE: Key = ("general.architecture", 8, string("llama"))


def blocks(type_name: str, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Random bytes of a type, [..., row bytes]."""
    return rng.integers(0, 256, (*shape[:-1], BLOCK_TYPES[type_name].row_nbytes(shape[-1])), dtype=np.uint8)


def write_gguf(
    path: Path,
    architecture: str,
    keys: dict[str, object],
    tensors: dict[str, np.ndarray],
    types: dict[str, str] | None = None,
    **options: int,
) -> Path:
    """A file by the reference writer.  Keys are below the architecture; `types` says what is quantised, by name."""
    writer = GGUFWriter(path, architecture, **options)
    for name, value in keys.items():
        _add(writer, name if name.startswith(("general.", "tokenizer.")) else f"{architecture}.{name}", value)
    for name, values in tensors.items():
        kind = (types or {}).get(name)
        if kind is None:
            writer.add_tensor(name, values)
        else:
            number = GGMLQuantizationType[kind]
            packed = values if values.dtype == np.uint8 else quantize(values, number)
            writer.add_tensor(name, packed, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, name: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
