"""Write the two files of a pack, experts and dense part; any safetensors reader opens both.

A killed run continues at the first slab that its journal does not have, and writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.checkpoint import Checkpoint
from rotary_batch.engine.packs.journal import Journal
from rotary_batch.engine.packs.tensors import TensorPlace, pieces
from rotary_batch.model.manifest import DENSE_NAME, EXPERTS_NAME, SlabPlace
from rotary_batch.model.slabs import PAGE_NBYTES, SlabLayout, uniform_layout

SYNC_NBYTES = 64 * 2**20  # of slabs between two syncs
PART_SUFFIX = ".part"
Progress = Callable[[int, int], None]  # experts written, experts in all


class Packing(NamedTuple):
    """What is packed, where to, and in which formats."""

    checkpoint: Checkpoint
    dst: Path
    experts: str
    dense: str

    @property
    def layout(self) -> SlabLayout:
        """Where the parts of a slab are; raises ModelError for an impossible format."""
        return uniform_layout(self.checkpoint.geometry, self.experts)

    @property
    def digest(self) -> str:
        """Identifies source and formats: a journal with another digest is not continued."""
        return f"{self.checkpoint.digest} {self.experts} {self.dense}"


def write_experts(packing: Packing, journal: Journal, progress: Progress) -> dict[ExpertKey, SlabPlace]:
    """Write the slabs that the journal does not have; the place of every slab, in ring order."""
    dst, slab_nbytes = packing.dst, packing.layout.nbytes
    keys, part = list(packing.checkpoint.experts), dst / (EXPERTS_NAME + PART_SUFFIX)
    names = [f"layers.{key.layer}.experts.{key.expert}" for key in keys]
    header = safetensors_header(dict.fromkeys(names, ("U8", (slab_nbytes,), slab_nbytes)))
    offsets = {key: len(header) + position * slab_nbytes for position, key in enumerate(keys)}
    if (dst / EXPERTS_NAME).is_file():  # killed between the rename and the manifest
        (dst / EXPERTS_NAME).replace(part)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, len(header) + slab_nbytes * len(keys))
        os.pwrite(descriptor, header, 0)
        slabs = _intact(packing, journal.slabs(), offsets)
        unsynced: list[tuple[ExpertKey, SlabPlace]] = []
        for position, key in enumerate(keys, 1):
            if key not in slabs:
                place = _write_slab(descriptor, offsets[key], packing, packing.checkpoint.experts[key])
                unsynced.append((key, place))
            if len(unsynced) * slab_nbytes >= SYNC_NBYTES or (unsynced and position == len(keys)):
                _commit(descriptor, journal, unsynced)
                slabs |= dict(unsynced)
                unsynced = []
            progress(position, len(keys))
    finally:
        os.close(descriptor)
    part.replace(dst / EXPERTS_NAME)
    return {key: slabs[key] for key in keys}


def _intact(
    packing: Packing, noted: Mapping[ExpertKey, SlabPlace], offsets: Mapping[ExpertKey, int]
) -> dict[ExpertKey, SlabPlace]:
    """The noted slabs whose bytes are there: a file may be lost while its journal exists."""
    part, nbytes = packing.dst / (EXPERTS_NAME + PART_SUFFIX), packing.layout.nbytes
    return {
        key: place
        for key, place in noted.items()
        if (offsets.get(key), nbytes) == (place.offset, place.nbytes)
        and sha256_of(pieces(slab_bytes(part, place))) == place.sha256
    }


def slab_bytes(path: Path, place: SlabPlace) -> TensorPlace:
    """A slab as a tensor of bytes."""
    return TensorPlace(path, place.offset, place.nbytes, "U8", (place.nbytes,))


def _write_slab(descriptor: int, offset: int, packing: Packing, matrices: Sequence[TensorPlace]) -> SlabPlace:
    digest, position = hashlib.sha256(), offset
    for piece in _slab_pieces(packing, matrices):
        digest.update(piece)
        _write_all(descriptor, piece, position)
        position += len(piece)
    return SlabPlace(offset, position - offset, digest.hexdigest())


def _slab_pieces(packing: Packing, matrices: Sequence[TensorPlace]) -> Iterator[memoryview]:
    """The bytes of a slab in order: bf16 in small pieces, other formats as a whole."""
    if packing.experts == "bf16":
        w1, w3, w2 = matrices
        up, down = packing.layout.parts["up"], packing.layout.parts["down"]
        yield from chain(pieces(w1), pieces(w3))
        yield memoryview(bytes(down.offset - up.nbytes))  # `down` begins on a cache line
        yield from pieces(w2)
        yield memoryview(bytes(packing.layout.nbytes - down.offset - down.nbytes))
        return
    from rotary_batch.engine.packs.encoding import encoded_slab

    yield encoded_slab(packing.layout, packing.experts, matrices)


def _write_all(descriptor: int, piece: memoryview, position: int) -> None:
    while piece:
        count = os.pwrite(descriptor, piece, position)
        piece, position = piece[count:], position + count


def _commit(descriptor: int, journal: Journal, slabs: Iterable[tuple[ExpertKey, SlabPlace]]) -> None:
    os.fdatasync(descriptor)
    journal.append(slabs)


def write_dense(packing: Packing) -> str:
    """Write the dense part; its digest."""
    from rotary_batch.engine.packs.encoding import dense_parts

    parts = list(dense_parts(packing.checkpoint, packing.dense))
    header = safetensors_header({part.name: (part.dtype, part.shape, part.nbytes) for part in parts})
    path = packing.dst / (DENSE_NAME + PART_SUFFIX)
    with path.open("wb") as file:
        file.write(header)
        for part in parts:
            for piece in part.pieces():
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    path.replace(packing.dst / DENSE_NAME)
    return file_sha256(packing.dst / DENSE_NAME)


def safetensors_header(tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """A safetensors header for tensors (dtype, shape, bytes).

    The data after it starts on a page: the JSON is padded with spaces, as the format allows.
    """
    table, offset = {}, 0
    for name, (dtype, shape, nbytes) in tensors.items():
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    length = -(-(8 + len(text)) // PAGE_NBYTES) * PAGE_NBYTES - 8
    return struct.pack("<Q", length) + text.ljust(length)


def file_sha256(path: Path) -> str:
    """The digest of a whole file, in hexadecimal."""
    return sha256_of(pieces(TensorPlace(path, 0, path.stat().st_size, "U8", ())))


def sha256_of(parts: Iterable[memoryview]) -> str:
    """The digest of bytes that come in parts, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
