"""Packs of random weights in the shape of a real model, for benchmarks without a download.

A few different slabs are written again and again: reading and multiplying take the same time whatever the numbers
are, and drawing 45 billion of them would take an hour.  The dense matrices of each layer are those of the first layer
with their rows rotated: drawing 5 billion numbers takes a minute.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from rotary_batch.core import ExpertKey
from rotary_batch.engine.kernels.quant import quantise
from rotary_batch.engine.packs.writer import Progress, safetensors_header
from rotary_batch.errors import StorageError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import DENSE_NAME, EXPERTS_NAME, MANIFEST_NAME, Manifest, SlabPlace
from rotary_batch.model.slabs import uniform_layout
from rotary_batch.model.tokens import Tokenizer, write_byte_tokenizer

NUM_SLABS = 2  # drawing and packing one of 8x22B takes 5 s
SCALE = 0.5  # of a weight times the square root of the row's length; hidden states stay finite over many layers


def synthetic_pack(
    folder: Path,
    name: str,
    geometry: Geometry,
    experts: str,
    dense: str,
    progress: Progress | None = None,
    *,
    repeated: bool = False,
) -> Path:
    """Write a pack of random weights if `folder` has none; return the folder.  Raises StorageError for a full disk.

    `repeated` writes each different slab once, and all experts share them.  That is enough for a tier in RAM, which
    has a copy for every expert; a benchmark of the disk needs a slab for each.
    """
    if (folder / MANIFEST_NAME).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    count = NUM_SLABS if repeated else len(list(geometry.expert_keys()))
    need, have = uniform_layout(geometry, experts).nbytes * count, _free(folder)
    if need > have:
        raise StorageError(f"{folder}: {name} in {experts} takes {need:,} bytes, {have:,} are free")
    torch.manual_seed(0)
    save_file(dict(_dense(geometry, dense)), str(folder / DENSE_NAME))
    slabs = _write_slabs(folder, geometry, experts, count, progress or (lambda _done, _total: None))
    write_byte_tokenizer(folder)
    manifest = Manifest(
        name=name,
        geometry=geometry,
        experts=experts,
        dense=dense,
        slabs=slabs,
        dense_sha256=_digest(folder / DENSE_NAME),
        tokenizer_sha256=Tokenizer.load(folder).digest,
        context_tokens=geometry.max_position,
    )
    manifest.save(folder)
    return folder


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _dense(geometry: Geometry, dense: str) -> Iterator[tuple[str, torch.Tensor]]:
    drawn: dict[tuple[tuple[int, ...], str], dict[str, torch.Tensor]] = {}
    for number, (name, shape) in enumerate(geometry.dense_shapes().items()):
        if name.endswith("norm"):
            yield name, torch.ones(shape, dtype=torch.bfloat16)
            continue
        if len(shape) == 1:  # biases; of a Gated DeltaNet, a decay of about a half
            yield name, torch.zeros(shape, dtype=torch.bfloat16)
            continue
        kind = shape, dense if geometry.is_quantisable(name) else "bf16"
        if kind not in drawn:
            drawn[kind] = quantise(_random(shape[0], shape[1]), kind[1])
        # every row is quantised by itself, so the quantised rows can be rotated
        yield from ((name + suffix, part.roll(number, 0)) for suffix, part in drawn[kind].items())


def _random(rows: int, columns: int) -> torch.Tensor:
    weight: torch.Tensor = torch.randn(rows, columns) * SCALE / columns**0.5
    return weight.bfloat16()


def _write_slabs(
    folder: Path, geometry: Geometry, experts: str, count: int, progress: Progress
) -> dict[ExpertKey, SlabPlace]:
    layout, keys = uniform_layout(geometry, experts), list(geometry.expert_keys())
    names = [f"slab.{place}" for place in range(count)]
    header = safetensors_header(dict.fromkeys(names, ("U8", (layout.nbytes,), layout.nbytes)))
    several = [random_slab(geometry, experts) for _ in range(NUM_SLABS)]
    digests = [hashlib.sha256(slab.numpy()).hexdigest() for slab in several]  # type: ignore[arg-type]
    with (folder / EXPERTS_NAME).open("wb") as file:
        file.write(header)
        for place in range(count):
            file.write(memoryview(several[place % NUM_SLABS].numpy()))  # type: ignore[arg-type]
            progress(place + 1, count)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return {
        key: SlabPlace(len(header) + place % count * layout.nbytes, layout.nbytes, digests[place % NUM_SLABS])
        for place, key in enumerate(keys)
    }


def random_slab(geometry: Geometry, experts: str) -> torch.Tensor:
    """The bytes of one expert with random weights."""
    layout = uniform_layout(geometry, experts)
    slab = torch.zeros(layout.nbytes, dtype=torch.uint8)
    for name, (rows, columns) in geometry.matrix_shapes.items():
        for suffix, tensor in quantise(_random(rows, columns), experts).items():
            part = layout.parts[name + suffix]
            slab[part.offset : part.offset + part.nbytes] = tensor.contiguous().view(-1).view(torch.uint8)
    return slab
