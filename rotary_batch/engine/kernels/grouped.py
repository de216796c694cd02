"""The experts of a layer in a few launches: on CUDA with Triton, for slabs that lie in slots of one block of memory.

Launching kernels for each of thousands of small experts takes longer than reading them: 0.2 ms each on an H200.
Formats that the kernels do not have are computed expert by expert, as exact numerics are.
T = rows, H = hidden, I = intermediate size, A = assignments of rows to experts, K = experts of a row.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch

from rotary_batch.engine.kernels.cuda import GEMM_TILE, TRITON_TYPES
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.ggml_types import BLOCK_TYPES, PLAIN_TYPES
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.memory_plan import COPY_BATCH_NBYTES
from rotary_batch.model.slabs import BLOCK_ROWS, SlabLayout, group_columns, padded_rows, parse_stored_as

LARGE_EXPERT_ROWS = 32  # of a large expert on average: above them dequantising first wins, and launches do not count
MIN_TILE, MAX_ROWS = 16, 128  # the fewest numbers that a tensor core multiplies; the most rows that registers hold
MIN_PROGRAMS = 1024  # keep a large GPU busy; with fewer, columns of the second product are split
COMBINE_TILE = 1024


class HeldExperts(NamedTuple):
    """Experts of one layer whose slabs may be read."""

    memory: torch.Tensor  # uint8: slots, one after the other
    slot_nbytes: int
    held: torch.Tensor  # int32 [n, 2] on the device: the number of each expert in its layer, and its slot
    label: str = ""  # of the timeline


class Rows(NamedTuple):
    """Rows x [T, H] of one layer, and which of them go to which expert."""

    x: torch.Tensor
    rows: torch.Tensor  # [A] row of each assignment, sorted by expert
    offsets: torch.Tensor  # [experts + 1] the first assignment of each expert
    assignments: torch.Tensor  # [T, K] index in `rows` of each row's assignments, in the order of the router's choice
    weights: torch.Tensor  # [T, K] float32


class _Stored(NamedTuple):
    """How the kernels read a matrix of a slab."""

    kind: str  # int4, plain, or the type of GGUF blocks
    number: torch.dtype  # of plain numbers, or of scales
    at: int  # byte in the slab
    scale_at: int
    width: int  # weight rows
    columns: int
    group: int  # columns that share a scale
    scale_rows: int
    tile: int  # columns at a time

    @property
    def arguments(self) -> dict[str, Any]:
        """What all kernels take."""
        block = BLOCK_TYPES.get(self.kind)
        return {
            "width": self.width,
            "columns": self.columns,
            "group": self.group,
            "scale_rows": self.scale_rows,
            "KIND": self.kind,
            "SCALE": _triton_dtype(self.number),
            "COLUMNS": block.columns if block else 1,
            "NBYTES": block.nbytes if block else 1,
            "TILE": self.tile,
        }


class GroupedLayout(NamedTuple):
    """Where the matrices of a layer's slabs are, as the kernels read them."""

    gate: _Stored
    up: _Stored
    down: _Stored
    gate_up_bias_at: int | None
    down_bias_at: int | None
    swiglu_limit: float
    swiglu_alpha: float


def grouped_layout(geometry: Geometry, stored: Mapping[str, str], layout: SlabLayout) -> GroupedLayout | None:
    """The layout of a layer whose matrices are stored like this; None where the kernels do not have its formats."""
    hidden, middle = geometry.hidden_size, geometry.intermediate_size
    down = _stored("down", stored["down"], (hidden, middle), layout, geometry.dtype)
    if "gate_up" in stored:
        both = _stored("gate_up", stored["gate_up"], (2 * middle, hidden), layout, geometry.dtype)
        gate, up = (both and _half(both, middle, half) for half in (0, 1))
    else:
        gate, up = (_stored(name, stored[name], (middle, hidden), layout, geometry.dtype) for name in ("gate", "up"))
    if gate is None or up is None or down is None or _kernel_of(gate) != _kernel_of(up):
        return None
    biases = [part.offset if (part := layout.parts.get(f"{name}.bias")) else None for name in ("gate_up", "down")]
    return GroupedLayout(gate, up, down, biases[0], biases[1], geometry.swiglu_limit, geometry.swiglu_alpha)


def _kernel_of(matrix: _Stored) -> _Stored:
    """What a kernel that reads gate and up is compiled for, and the sizes that it gets once."""
    return matrix._replace(at=0, scale_at=0)


def _stored(name: str, stored_as: str, shape: tuple[int, int], layout: SlabLayout, dtype: str) -> _Stored | None:
    stored, (width, columns), at = parse_stored_as(stored_as), shape, layout.parts[name].offset
    if stored.is_ordered:
        return None
    if stored.kind == "int4":
        scales, group = layout.parts[f"{name}.scale_zero"], stored.group or group_columns(columns)
        if group % MIN_TILE:
            return None
        number, tile = _DTYPES[scales.dtype], math.gcd(group, GEMM_TILE)
        return _Stored("int4", number, at, scales.offset, width, columns, group, padded_rows(width), tile)
    if stored.kind == "bf16" or stored.type_name in PLAIN_TYPES:
        number = _DTYPES[dtype if stored.kind == "bf16" else stored.type_name]
        return _Stored("plain", number, at, 0, width, columns, columns, 0, GEMM_TILE)
    if stored.type_name in TRITON_TYPES:
        tile = min(GEMM_TILE, BLOCK_TYPES[stored.type_name].columns)
        return _Stored(stored.type_name, torch.uint8, at, 0, width, columns, columns, 0, tile)
    return None


_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def _half(both: _Stored, middle: int, half: int) -> _Stored | None:
    """The gates, or what they multiply, of a matrix that has both."""
    own = both._replace(width=middle)
    if both.kind == "int4":
        if middle % BLOCK_ROWS:
            return None  # a block of rows has some of both
        at, scale_at = middle * both.columns // 2, middle * 2 * both.number.itemsize
        return own._replace(at=both.at + half * at, scale_at=both.scale_at + half * scale_at)
    if both.kind == "plain":
        return own._replace(at=both.at + half * middle * both.columns * both.number.itemsize)
    return own._replace(at=both.at + half * middle * BLOCK_TYPES[both.kind].row_nbytes(both.columns))


class GroupedKernels:
    """Which layers of a model the kernels compute, and for how many rows."""

    def __init__(self, manifest: Manifest) -> None:
        geometry = manifest.geometry
        self._num_experts = geometry.num_experts
        self._is_small = manifest.slab_nbytes <= COPY_BATCH_NBYTES
        by_format = {_formats(manifest, layer): layer for layer in geometry.moe_layers}
        layouts = {
            formats: grouped_layout(geometry, manifest.stored(layer), manifest.layout(layer))
            for formats, layer in by_format.items()
        }
        self._layouts = {layer: layouts[_formats(manifest, layer)] for layer in geometry.moe_layers}

    def for_rows(self, layer: int, num_assignments: int) -> GroupedLayout | None:
        """The layout of a layer; None where computing its experts one by one is possible only, or faster."""
        if self._is_small or num_assignments <= LARGE_EXPERT_ROWS * self._num_experts:
            return self._layouts[layer]
        return None


def _formats(manifest: Manifest, layer: int) -> tuple[tuple[str, str], ...]:
    return tuple(manifest.stored(layer).items())


class GroupedProducts:
    """One layer's experts over the rows of a step: `add` some experts after the others, then `combine` all."""

    def __init__(self, rows: Rows, layout: GroupedLayout) -> None:
        self._rows, self._layout = rows, layout
        count, num_experts = len(rows.rows), len(rows.offsets) - 1
        self._tile_rows = tile_rows(count / num_experts)
        self._middle = rows.x.new_empty(count, layout.gate.width)
        self._splits, self._split_columns = _splits(layout.down, min(count, num_experts))
        dtype = rows.x.dtype if self._splits == 1 else torch.float32
        self._out = torch.empty(self._splits, count, layout.down.width, dtype=dtype, device=rows.x.device)

    def add(self, experts: HeldExperts) -> None:
        """Compute the rows of these experts."""
        rows, layout = self._rows, self._layout
        common = {
            "memory": experts.memory,
            "held": experts.held,
            "offsets": rows.offsets,
            "slot_nbytes": experts.slot_nbytes,
            "ROWS": self._tile_rows,
            "num_warps": 8 if self._tile_rows == MAX_ROWS else 4,
        }
        blocks = -(-layout.gate.width // BLOCK_ROWS)
        triton_experts().gate_up_kernel[(len(experts.held), blocks)](
            x=rows.x,
            rows=rows.rows,
            out=self._middle,
            gate_at=layout.gate.at,
            gate_scale_at=layout.gate.scale_at,
            up_at=layout.up.at,
            up_scale_at=layout.up.scale_at,
            bias_at=layout.gate_up_bias_at or 0,
            limit=layout.swiglu_limit,
            alpha=layout.swiglu_alpha,
            HAS_BIAS=layout.gate_up_bias_at is not None,
            CLAMPED=bool(layout.swiglu_limit),
            **layout.gate.arguments,
            **common,
        )
        blocks = -(-layout.down.width // BLOCK_ROWS)
        triton_experts().down_kernel[(len(experts.held), blocks, self._splits)](
            x=self._middle,
            out=self._out,
            num_rows=len(rows.rows),
            at=layout.down.at,
            scale_at=layout.down.scale_at,
            bias_at=layout.down_bias_at or 0,
            split_columns=self._split_columns,
            HAS_BIAS=layout.down_bias_at is not None,
            **layout.down.arguments,
            **common,
        )

    def combine(self) -> torch.Tensor:
        """[T, H]: the weighted sum of each row's experts, in the order of the router's choice."""
        rows, out = self._rows, torch.empty_like(self._rows.x)
        width = out.shape[1]
        triton_experts().combine_kernel[(len(out), -(-width // COMBINE_TILE))](
            self._out,
            rows.assignments,
            rows.weights,
            out,
            num_rows=len(rows.rows),
            width=width,
            splits=self._splits,
            TOP_K=rows.weights.shape[1],
            TILE=COMBINE_TILE,
        )
        return out


def tile_rows(mean_rows: float) -> int:
    """Rows that a program multiplies at a time, when an expert has `mean_rows`: a power of two."""
    rows = MIN_TILE
    while rows < mean_rows and rows < MAX_ROWS:
        rows *= 2
    return rows


def _splits(down: _Stored, num_experts: int) -> tuple[int, int]:
    """How often the columns of the second product are split, and the columns of each split."""
    programs = max(1, num_experts) * -(-down.width // BLOCK_ROWS)
    unit = max(down.tile, down.group if down.kind == "int4" else down.tile)
    units = -(-down.columns // unit)
    per_split = max(-(-units // max(1, MIN_PROGRAMS // programs)), -(-2 * GEMM_TILE // unit))
    return -(-units // per_split), per_split * unit


@cache
def triton_experts() -> Any:  # noqa: ANN401 - the module is typed in Triton's own way
    """The kernels; imported at first use, because importing Triton takes seconds."""
    return importlib.import_module("rotary_batch.engine.kernels.triton_experts")


@cache
def _triton_dtype(dtype: torch.dtype) -> Any:  # noqa: ANN401 - as above
    return importlib.import_module("triton.language").__dict__[str(dtype).removeprefix("torch.")]
