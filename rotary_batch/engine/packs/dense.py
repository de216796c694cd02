"""Read the dense part of a pack: every matrix that is not an expert's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from rotary_batch.engine.kernels.matrices import Int8Matrix, Matrix
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.runtime.buffers import copy_to_pages
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import DENSE_NAME, Manifest


def load_dense(pack_dir: Path, manifest: Manifest, numerics: Numerics, device: torch.device) -> dict[str, Matrix]:
    """Every dense matrix by name, on the device; int8 stays int8.  Raises ModelError for a damaged file.

    Tensors are loaded one at a time, so that the peak is the sum and not twice the sum.
    """
    path, geometry = pack_dir / DENSE_NAME, manifest.geometry
    try:
        with path.open("rb") as raw:  # 1 to 2 GB/s; a flipped bit on disk must not become prose
            if hashlib.file_digest(raw, "sha256").hexdigest() != manifest.dense_sha256:
                raise ModelError(f"{path}: damaged (its digest differs); pack the model again")
        with safe_open(str(path), framework="pt") as file:
            dense: dict[str, Matrix] = {}
            for name in geometry.dense_shapes():
                stored = file.get_tensor(name)
                is_int8 = manifest.dense == "int8" and geometry.is_quantisable(name)
                # a copy: the reader maps the file, unaligned (torch's int8 operator crashes on that) and evictable
                tensor = copy_to_pages(stored, stored.dtype if is_int8 else numerics.storage_dtype).to(device)
                dense[name] = Int8Matrix(tensor, file.get_tensor(name + ".scale").to(device)) if is_int8 else tensor
            return dense
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: {error}; see `model verify`") from error
