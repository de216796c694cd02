"""compressed-tensors, as llm-compressor writes it: integers of 4 and 8 bits, FP8 and MXFP4.

pack-quantized: weight_packed I32 [N, K * bits / 32] (number i at bit i * bits, value + 8 or + 128), weight_scale
[N, G], weight_zero_point I32 [N * 4 / 32, G] where asymmetric, weight_g_idx I32 [K] where columns are ordered.
int-quantized: weight I8.  float-quantized: weight F8_E4M3.  weight = scale * (q - z).
"""

from __future__ import annotations

from dataclasses import dataclass

from rotary_batch.engine.packs.quantised.fp8 import fp8_matrix, is_fp8
from rotary_batch.engine.packs.quantised.gptq import MAX_GROUP
from rotary_batch.engine.packs.quantised.mxfp4 import packed_matrix
from rotary_batch.engine.packs.quantised.source import (
    MAX_SCHEMES,
    PAIR_NAMES,
    QuantisedMatrix,
    Tensors,
    num_groups,
    place_of,
    stored_group,
    words,
)
from rotary_batch.engine.packs.tensors import TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import Table, shown

_MAX_BLOCK = 2**16
_FORMATS = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "mixed-precision",
)
_STRATEGIES = ("tensor", "channel", "group", "block")


@dataclass(frozen=True, slots=True)
class _Scheme:
    """The weights of one config group."""

    bits: int
    is_float: bool
    group: int | None  # columns that share a scale; None where a row or the matrix does
    block: tuple[int, int] | None
    is_symmetric: bool
    is_ordered: bool


class CompressedTensors:
    """The compressed-tensors modules of one checkpoint."""

    def __init__(self, config: Table, tensors: Tensors) -> None:
        _require_known_format(config)
        _refuse_fused(tensors)
        groups = config.mapping("config_groups")
        if not 0 < len(groups) <= MAX_SCHEMES:
            raise config.error(f"{len(groups):,} config_groups, not 1 to {MAX_SCHEMES:,}")
        self._schemes = [_scheme(config.table("config_groups").table(name)) for name in groups]

    def matrix(self, tensors: Tensors, name: str, shape: tuple[int, int]) -> QuantisedMatrix | None:
        """The matrix of a module; None for one that is not quantised."""
        packed, weight = tensors.get(name + ".weight_packed"), tensors.get(name + ".weight")
        if packed is not None and packed.dtype == "U8":
            if name + ".weight_global_scale" in tensors:
                raise ModelError(f"{packed.path}: {name} is in NVFP4, which this version does not read")
            return packed_matrix(tensors, name, shape)
        if packed is not None:
            return self._packed(tensors, name, shape, packed)
        if weight is not None and weight.dtype == "I8":
            return _int8(tensors, name, shape)
        if is_fp8(tensors, name):
            return fp8_matrix(tensors, name, shape, [one.block for one in self._schemes if one.block])
        return None

    def _packed(self, tensors: Tensors, name: str, shape: tuple[int, int], packed: TensorPlace) -> QuantisedMatrix:
        """A module in integers of 4 or 8 bits, by the scheme that its shapes fit."""
        rows, columns = shape
        integers = [one for one in self._schemes if not one.is_float]
        if not integers:
            raise ModelError(f"{packed.path}: {name} is in integers, but no group of config_groups is")
        scheme = next((one for one in integers if _fits(one, tensors, name, shape)), integers[0])
        group = min(scheme.group or columns, columns)
        groups, has_zeros = num_groups(columns, group), name + ".weight_zero_point" in tensors
        if has_zeros and scheme.bits == 8:
            raise ModelError(f"{packed.path}: {name} has 8 bits and zero points; this version reads symmetric 8 bits")
        places = {
            ".weight_packed": place_of(tensors, name + ".weight_packed", ["I32"], (rows, words(columns, scheme.bits))),
            ".weight_scale": place_of(tensors, name + ".weight_scale", PAIR_NAMES, *_scale_shapes(rows, groups)),
        }
        if has_zeros or not scheme.is_symmetric:
            shape_zeros = (words(rows, scheme.bits), groups)
            places[".weight_zero_point"] = place_of(tensors, name + ".weight_zero_point", ["I32"], shape_zeros)
        if name + ".weight_g_idx" in tensors:
            places[".weight_g_idx"] = place_of(tensors, name + ".weight_g_idx", ["I32"], (columns,))
        is_symmetric = ".weight_zero_point" not in places
        pair = PAIR_NAMES[places[".weight_scale"].dtype] if is_symmetric else "f32"
        return QuantisedMatrix(
            name=name,
            rows=rows,
            columns=columns,
            stored_as=f"int{scheme.bits}:{stored_group(name, columns, group)}:{pair}",
            layout="packed",
            bits=scheme.bits,
            places=places,
            group=group,
            is_symmetric=is_symmetric,
            is_ordered=groups > 1 and scheme.is_ordered,
        )


def _int8(tensors: Tensors, name: str, shape: tuple[int, int]) -> QuantisedMatrix:
    """A module of plain bytes with a scale for each row, or for all."""
    rows, columns = shape
    places = {
        ".weight": place_of(tensors, name + ".weight", ["I8"], shape),
        ".weight_scale": place_of(tensors, name + ".weight_scale", PAIR_NAMES, *_scale_shapes(rows, 1)),
    }
    if name + ".weight_zero_point" in tensors:
        places[".weight_zero_point"] = place_of(tensors, name + ".weight_zero_point", ["I8"], *_scale_shapes(rows, 1))
    return QuantisedMatrix(
        name=name,
        rows=rows,
        columns=columns,
        stored_as=f"int8:{columns}:{PAIR_NAMES[places['.weight_scale'].dtype]}",
        layout="int8",
        places=places,
        group=columns,
    )


def _scale_shapes(rows: int, groups: int) -> list[tuple[int, ...]]:
    """One scale for each row and group; where a row is one group, also one for each row or for the matrix."""
    return [(rows, groups)] if groups > 1 else [(rows, 1), (rows,), (1,), (1, 1), ()]


def _fits(scheme: _Scheme, tensors: Tensors, name: str, shape: tuple[int, int]) -> bool:
    rows, columns = shape
    scale = tensors.get(name + ".weight_scale")
    groups = num_groups(columns, min(scheme.group or columns, columns))
    has_zeros = name + ".weight_zero_point" in tensors
    return (
        tensors[name + ".weight_packed"].shape == (rows, words(columns, scheme.bits))
        and scale is not None
        and scale.shape in _scale_shapes(rows, groups)
        and has_zeros != scheme.is_symmetric
    )


def _require_known_format(config: Table) -> None:
    if config.has("format") and config.text("format") not in _FORMATS:
        raise config.error(
            f"compressed-tensors in the format {shown(config.text('format'))}; this version reads {', '.join(_FORMATS)}"
        )
    sparsity = config.table("sparsity_config")
    if sparsity.has("format") and sparsity.text("format") != "dense":
        raise sparsity.error(f"weights are sparse ({shown(sparsity.text('format'))}), which this version does not read")


def _refuse_fused(tensors: Tensors) -> None:
    """llm-compressor 0.12.0 packed fused experts along the wrong axis (vllm-project/llm-compressor, issue 2939)."""
    for name, place in tensors.items():
        if name.endswith(("experts.gate_up_proj_packed", "experts.down_proj_packed")):
            raise ModelError(
                f"{place.path}: tensor {name}: fused experts that llm-compressor 0.12.0 damaged; "
                "fetch a version of the model that has each expert apart"
            )


def _scheme(group: Table) -> _Scheme:
    if group.has("format") and group.text("format") not in _FORMATS:
        raise group.error(f"in the format {shown(group.text('format'))}; this version reads {', '.join(_FORMATS)}")
    weights = group.table("weights")
    kind, bits = weights.one_of("type", ("int", "float")), weights.whole("num_bits", 64)
    strategy = weights.one_of("strategy", _STRATEGIES)
    columns = weights.whole("group_size", MAX_GROUP) if strategy == "group" else None
    if bits != 8 and (bits != 4 or (kind == "float" and columns != 32)):
        raise weights.error(f"{kind} of {bits} bits; this version reads int of 4 and 8, float of 8, and MXFP4")
    is_float = kind == "float"
    block = (1, columns) if is_float and columns else _block(weights) if strategy == "block" else None
    is_symmetric = weights.boolean("symmetric") if weights.has("symmetric") else True
    is_ordered = weights.holds("actorder", str) and weights.text("actorder").lower() in ("group", "dynamic")
    return _Scheme(bits, is_float, columns, block, is_symmetric, is_ordered)


def _block(weights: Table) -> tuple[int, int]:
    """`block_structure`: rows and columns, as a list or as "128x128"."""
    if weights.holds("block_structure", str):
        sides = weights.text("block_structure").split("x")
        numbers = tuple(int(side) for side in sides if side.isdecimal() and len(side) < len(str(_MAX_BLOCK)) + 1)
    else:
        numbers = weights.wholes("block_structure", 2, _MAX_BLOCK)
    if len(numbers) != 2 or 0 in numbers:
        raise weights.wrong("block_structure", "two whole numbers above 0")
    return numbers[0], numbers[1]
