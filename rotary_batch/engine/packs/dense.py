"""Read the dense part of a pack: every matrix that is not an expert's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from rotary_batch.engine.kernels.matrices import Matrix
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import matrix_from
from rotary_batch.engine.runtime.buffers import copy_to_pages
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import DENSE_NAME, Manifest
from rotary_batch.model.slabs import matrix_parts


def load_dense(pack_dir: Path, manifest: Manifest, numerics: Numerics, device: torch.device) -> dict[str, Matrix]:
    """Every dense matrix by name, on the device; what is quantised stays so.  Raises ModelError for a damaged file.

    Tensors are loaded one at a time, so that the peak is the sum and not twice the sum.
    """
    path, geometry = pack_dir / DENSE_NAME, manifest.geometry
    try:
        with path.open("rb") as raw:  # 1 to 2 GB/s; a flipped bit on disk must not become prose
            if hashlib.file_digest(raw, "sha256").hexdigest() != manifest.dense_sha256:
                raise ModelError(f"{path}: damaged (its digest differs); pack the model again")
        with safe_open(str(path), framework="pt") as file:
            dense: dict[str, Matrix] = {}
            for name, shape in geometry.dense_shapes().items():
                stored_as = manifest.dense_stored(name)
                is_plain = stored_as == "bf16"
                dtype = torch.float32 if geometry.is_float32(name) else numerics.storage_dtype
                suffixes = (
                    [""]
                    if is_plain
                    else [part.suffix for part in matrix_parts(stored_as, shape[0], shape[1], geometry.dtype)]
                )
                stored = {suffix: file.get_tensor(name + suffix) for suffix in suffixes}
                # a copy: the reader maps the file, unaligned (torch's int8 operator crashes on that) and evictable
                parts = {
                    suffix: copy_to_pages(part, dtype if is_plain else part.dtype).to(device)
                    for suffix, part in stored.items()
                }
                dense[name] = matrix_from(parts, shape[0], stored_as)
            return dense
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: {error}; see `model verify`") from error


def _suffixes(stored_as: str, shape: tuple[int, ...]) -> list[str]:
    rows, columns = shape
    return [part.suffix for part in matrix_parts(stored_as, rows, columns, "BF16")]
