"""The C functions of the kernels: their parameters by name, and calls with keyword arguments.

M = rows of x, N = rows of the matrix, K = columns, D = head dimension.  The names of functions end in the kind of a
format: int4 is also that of int4:f16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple


class Signature(NamedTuple):
    """The parameters of a C function, in order; the number of threads is the last one."""

    pointers: tuple[str, ...]
    sizes: tuple[str, ...]
    floats: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters, in order."""
        return (*self.pointers, *self.sizes, *self.floats, "threads")


_MNK = ("M", "N", "K")
_GEMM_BF16 = {
    "bf16": Signature(("weights", "x", "packed_x", "out"), _MNK),
    "int8": Signature(("weights", "scale", "x", "packed_x", "out"), _MNK),
    "int4": Signature(("nibbles", "scale_zero", "x", "packed_x", "out", "x_sums"), (*_MNK, "group", "pair")),
}
_Q8 = {
    "gemm_{}_q8_ggml": Signature(("blocks", "x", "units", "out"), (*_MNK, "type")),
    "gemm_{}_q8_int4": Signature(("nibbles", "scale_zero", "x", "units", "out"), (*_MNK, "group", "pair")),
    "gemm_{}_q8_int8": Signature(("weights", "scale", "x", "units", "out"), _MNK),
    "quantise_{}_q8": Signature(("x", "units"), ("M", "K", "type")),
    "experts_{}_q8": Signature(
        pointers=("experts", "x", "rows", "middle", "out"),
        sizes=(
            *("E", "T", "scratch_rows", "H", "I", "type", "group", "pair", "scale_rows"),
            *("down_type", "down_group", "down_pair"),
        ),
        floats=("limit", "alpha"),
    ),
    "combine_{}_q8": Signature(("experts_out", "places", "weights", "out"), ("T", "H", "K")),
}
SIGNATURES = {
    "gemm_avx2_bf16": Signature(("weights", "x", "out"), _MNK),
    "gemm_avx2_int8": Signature(("weights", "x", "out"), _MNK),
    "gemm_avx2_int4": Signature(("nibbles", "scale_zero", "x", "out"), (*_MNK, "group", "pair")),
    "decode_avx2_ggml": Signature(("blocks", "out"), ("N", "K", "type", "out_format")),
    "decode_avx2_fp8": Signature(("weights", "scale", "out"), ("N", "K", "rows", "columns", "out_format")),
    "decode_avx2_int8": Signature(("weights", "scale", "out"), ("N", "K", "group", "scale_format", "out_format")),
    "gemv_avx512bf16_bf16": Signature(("weights", "x", "out"), _MNK),
    "gemm_avx512bf16_bf16": _GEMM_BF16["bf16"],
    **{f"gemm_amx_{stored_as}": signature for stored_as, signature in _GEMM_BF16.items()},
    "gemm_amx_ggml": Signature(("blocks", "x", "packed_x", "out"), (*_MNK, "type")),
    **{name.format(level): signature for level in ("avx2", "avxvnni", "avx512") for name, signature in _Q8.items()},
    "attention_avx2": Signature(
        pointers=("queries", "keys", "values", "out", "segments"),
        sizes=("num_segments", "heads", "groups", "D", "window", "format"),
        floats=("scale",),
    ),
    "delta_avx2": Signature(
        pointers=("q", "k", "v", "decay", "beta", "states", "out", "rows", "own"),
        sizes=("count", "K", "V", "Dk", "Dv"),
    ),
}


def function_name(kernel: str, stored_as: str) -> str:
    """The C function of a kernel for a format."""
    return f"{kernel}_{stored_as.split(':')[0]}"


def bind(library: ctypes.CDLL, name: str) -> Callable[..., None]:
    """A function of SIGNATURES, called by keyword: addresses of arrays, sizes, `threads`."""
    signature, function = SIGNATURES[name], library[name]
    function.argtypes = [
        *[ctypes.c_void_p] * len(signature.pointers),
        *[ctypes.c_long] * len(signature.sizes),
        *[ctypes.c_float] * len(signature.floats),
        ctypes.c_int,
    ]
    function.restype = None
    names = signature.names

    def call(**arguments: float) -> None:
        if arguments.keys() != set(names):
            raise TypeError(f"{name} takes {names}, not {tuple(arguments)}")
        function(*(arguments[parameter] for parameter in names))

    return call
