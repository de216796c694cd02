"""The weights of experts in slots: as matrices of one, or as several that are computed together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.kernels.experts import ExpertAddresses, expert_addresses
from rotary_batch.engine.kernels.grouped import HeldExperts
from rotary_batch.engine.kernels.matrices import Matrix
from rotary_batch.engine.kernels.quant import matrix_from
from rotary_batch.engine.packs.loading import DTYPES
from rotary_batch.engine.runtime.trace import interval_label
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.slabs import expert_shapes


@dataclass(frozen=True, eq=False)
class Slab:
    """Views of one expert's weights; valid only inside the `hold` that gave it, unless it is resident."""

    gate_up: tuple[Matrix, ...]  # gate over up, [2 * intermediate, hidden], or each by itself
    down: Matrix  # [hidden, intermediate]
    gate_up_bias: torch.Tensor | None = None  # float32 [2 * intermediate]
    down_bias: torch.Tensor | None = None  # float32 [hidden]

    @cached_property
    def addresses(self) -> ExpertAddresses | None:
        """For kernels that compute whole experts on a CPU; None where they cannot read it."""
        return expert_addresses(self.gate_up, self.down, self.gate_up_bias, self.down_bias)


def slab_views(buffer: torch.Tensor, manifest: Manifest, layer: int) -> Slab:
    """The matrices of a slab of this layer, as views of its bytes."""
    stored, parts = manifest.stored(layer), manifest.layout(layer).parts
    tensors = {
        name: buffer[part.offset : part.offset + part.nbytes].view(DTYPES[part.dtype]).view(part.shape)
        for name, part in parts.items()
    }
    matrices = {
        name: matrix_from(_of(name, tensors), rows, stored[name])
        for name, (rows, _) in expert_shapes(manifest.geometry, stored).items()
    }
    gate_up = tuple(matrices[name] for name in ("gate_up", "gate", "up") if name in matrices)
    return Slab(gate_up, matrices["down"], tensors.get("gate_up.bias"), tensors.get("down.bias"))


def _of(name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parts of one matrix, by suffix."""
    return {key.removeprefix(name): tensor for key, tensor in tensors.items() if key.partition(".")[0] == name}


def held_experts(memory: torch.Tensor, slot_nbytes: int, slots: Mapping[ExpertKey, int]) -> HeldExperts:
    """Experts of one layer and their slots; the host does not wait for the device."""
    # page-locked: from other memory a copy may wait for all that was launched before
    held = torch.tensor(
        [(key.expert, slot) for key, slot in slots.items()], dtype=torch.int32, pin_memory=memory.is_cuda
    )
    return HeldExperts(memory, slot_nbytes, held.to(memory.device, non_blocking=True), interval_label(list(slots)))


class SlotViews:
    """Views of the same memory as a slab of each layer; layers that are stored alike share them."""

    def __init__(self, buffer: torch.Tensor, manifest: Manifest) -> None:
        self._buffer = buffer
        self._manifest = manifest
        self._views: dict[tuple[tuple[str, str], ...], Slab] = {}

    def of(self, layer: int) -> Slab:
        """The matrices of a slab of this layer."""
        stored = tuple(self._manifest.stored(layer).items())
        if stored not in self._views:
            self._views[stored] = slab_views(self._buffer, self._manifest, layer)
        return self._views[stored]
