"""GPTQ (arXiv 2210.17323), as AutoGPTQ and GPTQModel write it: 4 bits, and 8 bits where symmetric.

A module has qweight I32 [K * bits / 32, N], packed along K; qzeros I32 [G, N * bits / 32], packed along N; scales
[G, N]; g_idx I32 [K], the group of each column.  weight = scale * (q - z).  Version 1 stores z - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from rotary_batch.model.tables import Table, shown

MAX_GROUP = 2**22
MAX_OVERRIDES = 2**14
_BITS = (4, 8)
_FORMATS = ("gptq", "gptq_v2")


@dataclass(frozen=True, slots=True)
class _Scheme:
    """What a module may be: the config's own values, or one of its overrides."""

    bits: int
    group: int  # columns, or -1 for the whole row
    is_symmetric: bool
    is_ordered: bool


class Gptq:
    """The GPTQ modules of one checkpoint."""

    def __init__(self, config: Table) -> None:
        self._layout = _layout(config)
        own = _scheme(config, None)
        overrides = [] if not config.has("dynamic") else _overrides(config, own)
        self._schemes = list(dict.fromkeys([own, *overrides]))
        if len(self._schemes) > MAX_SCHEMES:
            raise config.error(f"{len(self._schemes):,} different overrides in dynamic; at most {MAX_SCHEMES} are read")

    def matrix(self, tensors: Tensors, name: str, shape: tuple[int, int]) -> QuantisedMatrix | None:
        """The matrix of a module; None for one that is not quantised."""
        if name + ".qweight" not in tensors:
            return None
        rows, columns = shape
        fitting = [scheme for scheme in self._schemes if _fits(scheme, tensors, name, shape)]
        # 3 groups of 72 columns may be of 24 or, the last one short, of 32: whole groups are likelier
        schemes = [scheme for scheme in fitting if columns % _group(scheme, columns) == 0] or fitting
        schemes = schemes or self._schemes[:1]
        bits, group = schemes[0].bits, _group(schemes[0], columns)
        groups = num_groups(columns, group)
        places = {
            ".qweight": place_of(tensors, name + ".qweight", ["I32"], (words(columns, bits), rows)),
            ".qzeros": place_of(tensors, name + ".qzeros", ["I32"], (groups, words(rows, bits))),
            ".scales": place_of(tensors, name + ".scales", PAIR_NAMES, (groups, rows)),
        }
        if name + ".g_idx" in tensors:
            places[".g_idx"] = place_of(tensors, name + ".g_idx", ["I32"], (columns,))
        is_symmetric = all(scheme.is_symmetric for scheme in schemes)
        # the zero scale * (8 - z) is 0 where symmetric; elsewhere a product of 15 bits, which only float32 has
        pair = PAIR_NAMES[places[".scales"].dtype] if is_symmetric else "f32"
        return QuantisedMatrix(
            name=name,
            rows=rows,
            columns=columns,
            stored_as=f"int{bits}:{stored_group(name, columns, group)}:{pair}",
            layout=self._layout,
            bits=bits,
            places=places,
            group=group,
            is_symmetric=is_symmetric,
            is_ordered=groups > 1 and any(scheme.is_ordered for scheme in schemes),
        )


def _group(scheme: _Scheme, columns: int) -> int:
    return columns if scheme.group == -1 else min(scheme.group, columns)


def _fits(scheme: _Scheme, tensors: Tensors, name: str, shape: tuple[int, int]) -> bool:
    rows, columns = shape
    packed, scales = tensors[name + ".qweight"], tensors.get(name + ".scales")
    groups = num_groups(columns, _group(scheme, columns))
    return packed.shape == (words(columns, scheme.bits), rows) and scales is not None and scales.shape == (groups, rows)


def _layout(config: Table) -> str:
    """`checkpoint_format` is the older name of `format`; without either it is version 1."""
    names = [config.text(key) for key in ("checkpoint_format", "format") if config.has(key)] or ["gptq"]
    if names[0] not in _FORMATS:
        raise config.error(f"GPTQ in the format {shown(names[0])}; this version reads {' and '.join(_FORMATS)}")
    if config.has("is_marlin_format") and config.boolean("is_marlin_format"):
        raise config.error(f"GPTQ in the format marlin; this version reads {' and '.join(_FORMATS)}")
    if config.has("pack_dtype") and config.text("pack_dtype") != "int32":
        raise config.error(f"pack_dtype is {shown(config.text('pack_dtype'))}; only int32 is read")
    return names[0]


def _overrides(config: Table, own: _Scheme) -> list[_Scheme]:
    """The values of `dynamic`, which are by patterns of module names; a pattern with "-:" leaves modules plain."""
    table = config.table("dynamic")
    patterns = config.mapping("dynamic")
    if len(patterns) > MAX_OVERRIDES:
        raise config.error(f"{len(patterns):,} overrides in dynamic; at most {MAX_OVERRIDES:,} are read")
    return [_scheme(table.table(pattern), own) for pattern in patterns if not pattern.startswith("-:")]


def _scheme(config: Table, own: _Scheme | None) -> _Scheme:
    bits = config.whole("bits", 32) if own is None or config.has("bits") else own.bits
    if bits not in _BITS:
        raise config.error(f"GPTQ of {bits} bits; this version reads {' and '.join(map(str, _BITS))}")
    group = config.whole("group_size", MAX_GROUP, least=-1) if own is None or config.has("group_size") else own.group
    if group == 0:
        raise config.error("group_size is 0, not -1 or a number of columns")
    symmetric, ordered = (own.is_symmetric, own.is_ordered) if own else (True, False)
    scheme = _Scheme(
        bits,
        group,
        config.boolean("sym") if config.has("sym") else symmetric,
        (config.boolean("desc_act") if config.has("desc_act") else ordered) and not _is_static(config),
    )
    if scheme.bits == 8 and not scheme.is_symmetric:
        raise config.error("GPTQ of 8 bits with zero points (sym false); this version reads symmetric 8 bits")
    return scheme


def _is_static(config: Table) -> bool:
    """Groups that were cut before the columns were reordered are neighbours in the file."""
    return config.has("static_groups") and config.boolean("static_groups")
