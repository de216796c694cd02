"""Whether a pack has everything that its manifest names, by sizes and headers: no weights are read."""

from __future__ import annotations

from pathlib import Path

from rotary_batch.engine.packs.safetensors_file import read_header
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import DTYPE_NBYTES
from rotary_batch.model.manifest import DENSE_NAME, EXPERTS_NAME, Manifest
from rotary_batch.model.slabs import matrix_parts


def check_experts(pack_dir: Path, manifest: Manifest) -> None:
    """Raise ModelError unless the file of the experts is long enough for every slab."""
    path = pack_dir / EXPERTS_NAME
    need = max(place.offset + place.nbytes for place in manifest.slabs.values())
    have = path.stat().st_size if path.is_file() else 0
    if have < need:
        raise ModelError(f"{path}: {have:,} bytes, the manifest needs {need:,}; pack the model again")


def check_dense(pack_dir: Path, manifest: Manifest) -> None:
    """Raise ModelError unless every tensor exists with the right type and shape."""
    path, geometry = pack_dir / DENSE_NAME, manifest.geometry
    places = read_header(path)
    for name, shape in geometry.dense_shapes().items():
        for part, (part_shape, dtypes) in _expected(manifest, name, shape).items():
            place = places.get(part)
            if place is None:
                raise ModelError(f"{path}: lacks {part}; pack the model again")
            if place.shape != part_shape or place.dtype not in dtypes:
                raise ModelError(
                    f"{path}: {part} is {list(place.shape)} of {place.dtype}, not {list(part_shape)} of "
                    f"{' or '.join(sorted(dtypes))}; pack the model again"
                )


def _expected(manifest: Manifest, name: str, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], set[str]]]:
    """Shape, and types that it may have, of each tensor that stores a dense one."""
    stored_as = manifest.dense_stored(name)
    if stored_as == "bf16":
        return {name: (shape, set(DTYPE_NBYTES))}
    rows, columns = shape
    parts = matrix_parts(stored_as, rows, columns, manifest.geometry.dtype)
    return {name + suffix: (part_shape, {dtype}) for suffix, dtype, part_shape in parts}
