"""What a model takes in bytes, as it is packed and as it computes, and what a queue asks of it.

Knows sizes; knows nothing of rates or of how memory is split.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import Manifest

# Activations of a row that live at once: hidden vectors, of them some for each of its experts, and intermediate ones of
# the rows of one expert (a few of a row's two experts are at work at the same time only when routing is badly skewed).
WORKSPACE_HIDDEN, WORKSPACE_EXPERT_HIDDEN, WORKSPACE_INTERMEDIATE = 4, 4, 4
LIBRARY_NBYTES = {"cpu": 0, "cuda": 400 * 2**20}  # cuBLAS has 32 MiB; logits, and what the allocator cannot join up


class Workload(NamedTuple):
    """What the queue holds, per item on average."""

    num_items: int
    prompt_tokens: float
    new_tokens: float
    longest_tokens: int  # prompt and new tokens of the longest item

    @property
    def kv_tokens(self) -> int:
        """What a sequence reserves."""
        return max(1, round(self.prompt_tokens + self.new_tokens) - 1)

    @property
    def mean_context_tokens(self) -> float:
        """Keys that a decode row looks at on average."""
        return self.prompt_tokens + self.new_tokens / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """A model in bytes, as it is packed and as its keys are kept."""

    name: str
    geometry: Geometry
    experts: str  # format of slabs
    dense: str
    kv: str  # format of keys
    slab_nbytes: int
    num_slabs: int
    dense_nbytes: int
    kv_token_nbytes: int
    number_nbytes: int  # of a number that is kept: of dense matrices and keys
    activation_nbytes: int  # of a number of a row
    library_nbytes: int  # what libraries take of the device

    def scratch_nbytes(self) -> int:
        """The largest matrix that is unpacked as a whole: of an expert, in float32 also the head when it is int8."""
        is_wide = self.number_nbytes == 4
        unpacked = [self.geometry.expert_params * 2 // 3] if self.experts != "bf16" or is_wide else []
        if self.dense == "int8" and is_wide:
            shapes = self.geometry.dense_shapes().items()
            unpacked += [math.prod(shape) for name, shape in shapes if self.geometry.is_quantisable(name)]
        return max(unpacked, default=0) * self.number_nbytes

    def row_nbytes(self) -> int:
        """Activations of one row."""
        vectors = WORKSPACE_HIDDEN + WORKSPACE_EXPERT_HIDDEN * self.geometry.top_k
        middle = WORKSPACE_INTERMEDIATE * self.geometry.intermediate_size
        return self.activation_nbytes * (vectors * self.geometry.hidden_size + middle)


def footprint(manifest: Manifest, kv: str, number_nbytes: int, activation_nbytes: int, device: str) -> Footprint:
    """What a pack takes when numbers are kept, and computed, in so many bytes; int8 keys have a float32 scale."""
    geometry = manifest.geometry
    heads = geometry.kv_token_params // geometry.head_dim
    kv_token_nbytes = geometry.kv_token_params + 4 * heads if kv == "int8" else geometry.kv_token_params * number_nbytes
    return Footprint(
        name=manifest.name,
        geometry=geometry,
        experts=manifest.experts,
        dense=manifest.dense,
        kv=kv,
        slab_nbytes=manifest.slab_nbytes,
        num_slabs=len(manifest.slabs),
        dense_nbytes=dense_nbytes(geometry, manifest.dense, number_nbytes),
        kv_token_nbytes=kv_token_nbytes,
        number_nbytes=number_nbytes,
        activation_nbytes=activation_nbytes,
        library_nbytes=LIBRARY_NBYTES[device.partition(":")[0]],
    )


def dense_nbytes(geometry: Geometry, dense: str, number_nbytes: int) -> int:
    """Everything but the experts, as it lies in device memory."""
    total = 0
    for name, shape in geometry.dense_shapes().items():
        if dense == "int8" and geometry.is_quantisable(name):
            total += math.prod(shape) + 4 * shape[0]
        else:
            total += math.prod(shape) * number_nbytes
    return total
