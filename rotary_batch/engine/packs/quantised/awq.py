"""AWQ (arXiv 2306.00978), as AutoAWQ writes it in its version "gemm": 4 bits.

A module has qweight I32 [K, N / 8] and qzeros I32 [G, N / 8], in which nibble i of a word is output column
(0, 2, 4, 6, 1, 3, 5, 7)[i], and scales [G, N].  weight = scale * (q - z).
"""

from __future__ import annotations

from rotary_batch.engine.packs.quantised.gptq import MAX_GROUP
from rotary_batch.engine.packs.quantised.source import (
    PAIR_NAMES,
    QuantisedMatrix,
    Tensors,
    num_groups,
    place_of,
    stored_group,
)
from rotary_batch.errors import ModelError
from rotary_batch.model.tables import Table, shown

_NIBBLES = 8  # of a word


class Awq:
    """The AWQ modules of one checkpoint."""

    def __init__(self, config: Table) -> None:
        bits = "w_bit" if config.has("w_bit") else "bits"
        if config.whole(bits, 32) != 4:
            raise config.error(f"AWQ of {config.whole(bits, 32)} bits; this version reads 4")
        version = next((config.text(key).lower() for key in ("version", "format") if config.has(key)), "gemm")
        if version != "gemm":
            raise config.error(f"AWQ of the version {shown(version)}, which packs differently; this version reads gemm")
        size = "q_group_size" if config.has("q_group_size") else "group_size"
        self._group = config.whole(size, MAX_GROUP, least=-1)
        if self._group == 0:
            raise config.error(f"{size} is 0, not -1 or a number of columns")
        self._has_zeros = config.boolean("zero_point") if config.has("zero_point") else True

    def matrix(self, tensors: Tensors, name: str, shape: tuple[int, int]) -> QuantisedMatrix | None:
        """The matrix of a module; None for one that is not quantised."""
        if name + ".qweight" not in tensors:
            return None
        rows, columns = shape
        if rows % _NIBBLES:
            raise ModelError(f"{tensors[name + '.qweight'].path}: {name}: {rows} rows; AWQ packs {_NIBBLES} at a time")
        group = columns if self._group == -1 else min(self._group, columns)
        groups = num_groups(columns, group)
        places = {
            ".qweight": place_of(tensors, name + ".qweight", ["I32"], (columns, rows // _NIBBLES)),
            ".scales": place_of(tensors, name + ".scales", PAIR_NAMES, (groups, rows)),
        }
        has_zeros = self._has_zeros or name + ".qzeros" in tensors
        if has_zeros:
            places[".qzeros"] = place_of(tensors, name + ".qzeros", ["I32"], (groups, rows // _NIBBLES))
        pair = "f32" if has_zeros else PAIR_NAMES[places[".scales"].dtype]
        return QuantisedMatrix(
            name=name,
            rows=rows,
            columns=columns,
            stored_as=f"int4:{stored_group(name, columns, group)}:{pair}",
            layout="awq",
            places=places,
            group=group,
            is_symmetric=not has_zeros,
        )
