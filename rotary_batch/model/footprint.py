"""The size of a model in bytes, packed and at work, and the size of a workload."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from rotary_batch.model.format_shares import Shares, dense_shares, expert_shares, head_format
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.slabs import stored_nbytes

# Activations of a row that live at once: hidden vectors, hidden vectors for each of its experts, and intermediate
# vectors of the rows of one expert (two experts of a row compute at the same time only when routing is badly skewed).
WORKSPACE_HIDDEN, WORKSPACE_EXPERT_HIDDEN, WORKSPACE_INTERMEDIATE = 4, 4, 4
WORKSPACE_CHANNELS = 8  # of linear attention, in float32: its channels, their chunks, and what the chunks solve to
PREFIX_STATES = 4  # prompts about chunks, files, folders and repositories begin differently
# Numbers of a matrix in a format of a model's file that torch's operators dequantise at once, and what each takes
# meanwhile: 8 to 17 bytes, the most in formats that look up levels.  Fewer fit into the caches of a CPU.
UNPACKED_NUMBERS = {"cpu": 2**19, "cuda": 2**22}
UNPACKING_NBYTES = 18
LIBRARY_NBYTES = {"cpu": 0, "cuda": 400 * 2**20}  # 32 MiB of cuBLAS, logits, fragmentation of the allocator


class Workload(NamedTuple):
    """What the queue holds, per item on average."""

    num_items: int
    prompt_tokens: float
    new_tokens: float
    longest_tokens: int  # prompt and new tokens of the longest item
    shared_tokens: float = 0.0  # of prompt_tokens, those at the beginning that an item has in common with its siblings
    siblings: float = 1.0  # items that share a beginning, which is computed and stored once for them

    @property
    def prefill_tokens(self) -> float:
        """Prompt tokens that are computed, with an item's part of what it shares."""
        return self.prompt_tokens - self.shared_tokens + self.shared_tokens / self.siblings

    @property
    def kv_tokens(self) -> int:
        """KV cache tokens that a sequence reserves, with its part of what it shares."""
        return max(1, math.ceil(self.prefill_tokens + self.new_tokens) - 1)

    @property
    def own_kv_tokens(self) -> int:
        """KV cache tokens that a sequence reserves for itself alone."""
        shared = self.shared_tokens if self.siblings > 1 else 0
        return max(1, math.ceil(self.prompt_tokens - shared + self.new_tokens) - 1)

    @property
    def mean_context_tokens(self) -> float:
        """Tokens whose KV cache is read for a decode row on average; siblings read what they share once."""
        return self.prefill_tokens + self.new_tokens / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """A model in bytes, with its formats."""

    name: str
    geometry: Geometry
    experts: str  # format of slabs
    dense: str
    expert_shares: Shares
    dense_shares: Shares  # of the matrices that every row passes
    head_format: str
    has_packed_dense: bool  # whether some of it is unpacked where it is used
    kv: str  # format of the KV cache
    slab_nbytes: int  # of the largest slab, and of a slot
    num_slabs: int
    experts_nbytes: int  # of all slabs
    dense_nbytes: int
    kv_token_nbytes: int
    state_nbytes: int = 0  # of one sequence, in layers that have a state instead of KV cache
    number_nbytes: int  # of one number of the dense matrices and the KV cache
    activation_nbytes: int  # of one number of a row
    library_nbytes: int  # device memory that libraries take
    unpacking_nbytes: int = 0  # of temporaries, where torch's operators dequantise
    has_equal_slots: bool = False  # residents take as much as the largest slab

    def slabs_within(self, nbytes: int) -> int:
        """How many slabs fit, each with its own size, of neighbours in the order expert by expert, layer by layer.

        That is the order of those that stay in one place.  One expert of all layers takes the same bytes wherever
        it begins; of what is left, each may be the largest.
        """
        experts = self.geometry.num_experts
        whole, rest = divmod(max(0, nbytes), self.experts_nbytes // experts)
        layers = self.num_slabs // experts
        return min(self.num_slabs, whole * layers + min(layers - 1, rest // self.slab_nbytes))

    def residents_within(self, nbytes: int) -> int:
        """How many slabs fit into device memory."""
        if self.has_equal_slots:
            return min(self.num_slabs, max(0, nbytes) // self.slab_nbytes)
        return self.slabs_within(nbytes)

    def scratch_nbytes(self) -> int:
        """The largest matrix that is unpacked at once, of an expert, or in float32 the int8 head; and temporaries."""
        is_wide = self.number_nbytes == 4
        unpacked = [self.geometry.expert_params * 2 // 3] if self.experts != "bf16" or is_wide else []
        if self.has_packed_dense and is_wide:
            shapes = self.geometry.dense_shapes().items()
            unpacked += [math.prod(shape) for name, shape in shapes if self.geometry.is_quantisable(name)]
        return max(unpacked, default=0) * self.number_nbytes + self.unpacking_nbytes

    def num_states(self, batch: int, siblings: float = 1.0) -> int:
        """States of a batch: one for each sequence, and some for shared prefixes; siblings have one of their own."""
        if not self.state_nbytes:
            return 0
        return batch + min(batch, PREFIX_STATES) + (math.ceil(batch / siblings) if siblings > 1 else 0)

    def batch_nbytes(self, batch: int, siblings: float = 1.0) -> int:
        """What a batch takes besides its KV cache: a decode row and a state for each sequence."""
        return batch * self.row_nbytes() + self.num_states(batch, siblings) * self.state_nbytes

    def row_nbytes(self) -> int:
        """Activations of one row: in the experts, or where they take more, in linear attention."""
        vectors = WORKSPACE_HIDDEN + WORKSPACE_EXPERT_HIDDEN * self.geometry.top_k
        middle = WORKSPACE_INTERMEDIATE * self.geometry.intermediate_size
        experts_nbytes = self.activation_nbytes * (vectors * self.geometry.hidden_size + middle)
        delta = self.geometry.delta
        return max(experts_nbytes, WORKSPACE_CHANNELS * 4 * delta.conv_channels if delta else 0)


def footprint(manifest: Manifest, kv: str, number_nbytes: int, activation_nbytes: int, device: str) -> Footprint:
    """The sizes of a pack; `number_nbytes` and `activation_nbytes` are 2 or 4.  An int8 KV cache has float32 scales."""
    geometry = manifest.geometry
    kv_token_nbytes = geometry.kv_token_params * number_nbytes
    if kv == "int8":
        kv_token_nbytes = geometry.kv_token_params + 4 * geometry.kv_token_scales
    kind = device.partition(":")[0]
    return Footprint(
        name=manifest.name,
        geometry=geometry,
        experts=manifest.experts,
        dense=manifest.dense,
        expert_shares=expert_shares(manifest),
        dense_shares=dense_shares(manifest),
        head_format=head_format(manifest),
        has_packed_dense=manifest.dense == "int8" or bool(manifest.dense_formats),
        kv=kv,
        slab_nbytes=manifest.slab_nbytes,
        num_slabs=len(manifest.slabs),
        experts_nbytes=manifest.experts_nbytes,
        dense_nbytes=dense_nbytes(geometry, manifest.dense_stored, number_nbytes),
        kv_token_nbytes=kv_token_nbytes,
        state_nbytes=geometry.state_nbytes,
        number_nbytes=number_nbytes,
        activation_nbytes=activation_nbytes,
        library_nbytes=LIBRARY_NBYTES[kind],
        unpacking_nbytes=_unpacking_nbytes(manifest, kind, number_nbytes),
        has_equal_slots=kind == "cuda",
    )


def _unpacking_nbytes(manifest: Manifest, kind: str, number_nbytes: int) -> int:
    """What torch's operators take while they dequantise the largest matrix of a model's own formats.

    On CUDA they dequantise in exact numerics (4 bytes a number), and in fast ones what Triton kernels do not.
    """
    formats = {
        *manifest.dense_formats.values(),
        *(one for own in manifest.layer_formats.values() for one in own.values()),
    }
    if kind == "cuda" and number_nbytes < 4:
        formats = {one for one in formats if not one.startswith(("ggml:", "int4:"))}
    if not formats:
        return 0
    dense = manifest.geometry.dense_shapes()
    sizes = [math.prod(dense[name]) for name in manifest.dense_formats]
    return UNPACKING_NBYTES * min(UNPACKED_NUMBERS[kind], max([manifest.geometry.expert_params * 2 // 3, *sizes]))


def dense_nbytes(geometry: Geometry, stored: Callable[[str], str], number_nbytes: int) -> int:
    """Everything but the experts, in device memory; `stored` says how each tensor is stored."""
    total = 0
    for name, shape in geometry.dense_shapes().items():
        stored_as = stored(name)
        if stored_as == "bf16" or name.endswith(".kv_b"):  # which is absorbed as plain numbers
            total += math.prod(shape) * (4 if geometry.is_float32(name) else number_nbytes)
        else:
            total += stored_nbytes(stored_as, shape[0], shape[1])
    return total
