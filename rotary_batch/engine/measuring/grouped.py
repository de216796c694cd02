"""How fast experts are multiplied that are computed in groups: one product alone waits for its launch."""

from __future__ import annotations

from dataclasses import replace

import torch

from rotary_batch.engine.kernels.cuda import HAS_TRITON
from rotary_batch.engine.kernels.grouped import GroupedProducts, HeldExperts, Rows, grouped_layout
from rotary_batch.engine.kernels.linear import fast_dtype
from rotary_batch.engine.measuring.timing import ROUNDS, seconds
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.shapes import shape
from rotary_batch.model.slabs import expert_layout

SIZES = replace(shape("mixtral-8x7b"), intermediate_size=2048)  # 8 experts of 25 million weights: no cache holds them
FILL = 56  # every byte of a slab; as a scale of any type it is below 1


class GroupedRate:
    """The experts of a layer in one format, ready to be multiplied."""

    def __init__(self, stored_as: str, device: torch.device, dtype: torch.dtype, sizes: Geometry = SIZES) -> None:
        """Raises ModelError where these sizes cannot be stored so; `is_possible` says whether there are kernels."""
        stored = {"gate_up": stored_as, "down": stored_as}
        slab = expert_layout(sizes, stored)
        self._layout = grouped_layout(sizes, stored, slab)
        self._sizes, self._device, self._dtype = sizes, device, dtype
        count = sizes.num_experts if self.is_possible else 0
        memory = torch.full((count * slab.nbytes,), FILL, dtype=torch.uint8, device=device)
        held = torch.arange(count, dtype=torch.int32, device=device)
        self._experts = HeldExperts(memory, slab.nbytes, torch.stack([held, held], 1))

    @property
    def is_possible(self) -> bool:
        """Whether the format is computed in groups."""
        return self._layout is not None

    def weight_s(self, num_rows: int, rounds: int = ROUNDS) -> float:
        """Seconds per weight when every expert has `num_rows` rows."""
        layout, sizes = self._layout, self._sizes
        assert layout is not None, "the format has no kernels"
        rows = self._rows(num_rows)

        def work() -> None:
            products = GroupedProducts(rows, layout)
            products.add(self._experts)
            products.combine()

        return seconds(work, self._device, rounds) / (sizes.num_experts * sizes.expert_params)

    def _rows(self, num_rows: int) -> Rows:
        """As many rows for each expert; a row has one."""
        count, device = num_rows * self._sizes.num_experts, self._device
        x = torch.randn(count, self._sizes.hidden_size, device=device, dtype=self._dtype)
        numbers = torch.arange(count, device=device)
        offsets = torch.arange(self._sizes.num_experts + 1, device=device) * num_rows
        return Rows(x, numbers, offsets, numbers[:, None], torch.ones(count, 1, device=device))


def grouped_rate(stored_as: str, device: torch.device) -> GroupedRate | None:
    """What to measure a format with; None where experts in it are computed one by one."""
    if device.type != "cuda" or not HAS_TRITON:
        return None
    try:
        rate = GroupedRate(stored_as, device, fast_dtype(device))
    except ModelError:  # a model's own groups do not divide these columns
        return None
    return rate if rate.is_possible else None
