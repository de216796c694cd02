"""The compiled kernels of c/, called with tensors; dispatch.py selects among them.

What C cannot check is checked here and raises ValueError: types, shapes and contiguity.
M = rows of x, N = rows of the matrix, K = columns, T = rows of a batch, D = head dimension.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import cache, lru_cache, partial

import torch

from rotary_batch.config import kernel_dir
from rotary_batch.engine.kernels.bindings import SIGNATURES, bind, function_name
from rotary_batch.engine.kernels.build import IS_X86, Library, open_library
from rotary_batch.engine.kernels.dispatch import (
    DECODED,
    FORMATS,
    GEMM_GROUPS,
    GGML,
    PAIRS,
    Gemm,
    Level,
    cap,
    select_kernel,
)
from rotary_batch.engine.kernels.matrices import (
    Fp8Matrix,
    GgmlMatrix,
    Int4Matrix,
    Int8GroupMatrix,
    Int8Matrix,
    Matrix,
    format_name,
    is_well_formed,
    num_columns,
    num_rows,
    parts_of,
)
from rotary_batch.engine.kernels.threads import num_threads
from rotary_batch.log import event
from rotary_batch.model.ggml_types import BLOCK_TYPES

SEGMENT_FIELDS = 6  # of attention.base.QuerySegment
MAX_ATTENTION_ROWS = 64  # rows of one sequence times the query heads of a KV head
HEAD_DIM_MULTIPLE, MAX_HEAD_DIM = 32, 256
TILE_ROWS, TILE_COLUMNS = 16, 32  # gemm_bf16.c: of x, of a matrix
BLOCK_ROWS = 64  # of an int4 matrix, and of what the kernels write for blocks of GGUF files
GEMV_ROWS = 4  # gemv_avx512bf16.c: rows of x
UNIT_COLUMNS, UNIT_NBYTES = 256, 384  # q8.h: of rows of x as 8-bit integers
PART_COLUMNS = 32  # q8.h: of them that share a scale
STATE_COLUMNS = 8  # delta_avx2.c
SELECTED_PRODUCTS = 2**12  # whose kernels are remembered
DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}
C_FORMATS = {torch.bfloat16: 0, torch.float32: 2, torch.float16: 3}  # common.h


class CpuKernels:
    """The kernels of one library.  They use as many threads as torch does."""

    def __init__(self, library: Library, *, has_bf16: bool) -> None:
        self.has_bf16 = has_bf16  # whether products of bf16 rows are faster than those of float32
        self.levels, self.level = library.levels, library.level
        # Searching the table takes 40 us, a fifteenth of a small expert's product with one row.
        self._select = lru_cache(SELECTED_PRODUCTS)(partial(select_kernel, levels=library.levels))
        self._functions: dict[str, Callable[..., None]] = {}
        if (functions := library.functions) is not None:
            self._functions = {name: bind(functions, name) for name in SIGNATURES if hasattr(functions, name)}
        self.experts_level = _experts_level(library.levels)
        self._has_attention = functions is not None and Level.AVX2 in library.levels

    def kernel_for(self, x: torch.Tensor, matrix: Matrix) -> str:
        """The fastest kernel for x times a matrix: a method of this class, or of FastMatmul (torch_*)."""
        shape = (len(x), num_rows(matrix), num_columns(matrix))
        group = matrix.group if isinstance(matrix, Int4Matrix) else 0
        gemm = Gemm(DTYPES[x.dtype], format_name(matrix), _is_contiguous(matrix), shape, group)
        return self._select(gemm)

    def call(self, name: str, tensors: Mapping[str, torch.Tensor], **numbers: float) -> None:
        """Run a C function.  The mapping keeps every tensor alive until it returns."""
        addresses = {parameter: tensor.data_ptr() for parameter, tensor in tensors.items()}
        self._functions[name](**addresses, **numbers, threads=num_threads())

    def gemm_avx2(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] float32 -> [M, N] float32."""
        x = _checked(x, matrix, torch.float32, multiples=(4, 8))
        rows, columns = x.shape
        if isinstance(matrix, Int4Matrix):
            return self._int4("gemm_avx2", x, matrix)
        if isinstance(matrix, GgmlMatrix):
            raise ValueError(f"{matrix.format_name} is not for gemm_avx2")  # noqa: TRY004 - as every refusal
        out = x.new_empty(rows, num_rows(matrix))
        if isinstance(matrix, Int8Matrix):
            tensors = {"weights": matrix.values, "x": x, "out": out}
            self.call("gemm_avx2_int8", tensors, M=rows, N=out.shape[1], K=columns)
            return out.mul_(matrix.scale)
        self.call("gemm_avx2_bf16", {**parts_of(matrix), "x": x, "out": out}, M=rows, N=out.shape[1], K=columns)
        return out

    def gemv_avx512bf16(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16, for 1 to 4 rows and a matrix in bf16."""
        x = _checked(x, matrix, torch.bfloat16, multiples=(4, 32))
        rows, columns = x.shape
        if not 1 <= rows <= GEMV_ROWS or not isinstance(matrix, torch.Tensor):
            raise ValueError(f"{rows} rows times {type(matrix).__name__} are not for gemv_avx512bf16")
        out = x.new_empty(rows, num_rows(matrix))
        tensors = {**parts_of(matrix), "x": x, "out": out}
        self.call("gemv_avx512bf16_bf16", tensors, M=rows, N=out.shape[1], K=columns)
        return out

    def gemm_avx2_q8(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] float32, quantised to 8 bits, -> [M, N] float32, for int4, int8 and blocks of GGUF files."""
        return self._q8("gemm_avx2_q8", x, matrix, torch.float32)

    def gemm_avxvnni_q8(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """The same, and the same results, by AVX-VNNI."""
        return self._q8("gemm_avxvnni_q8", x, matrix, torch.float32)

    def gemm_avx512_q8(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """The same in bf16; rounded, the results are those of gemm_avx2_q8."""
        return self._q8("gemm_avx512_q8", x, matrix, torch.bfloat16)

    def _q8(self, name: str, x: torch.Tensor, matrix: Matrix, dtype: torch.dtype) -> torch.Tensor:
        x = _checked(x, matrix, dtype, multiples=(1, PART_COLUMNS))
        units = self.units(*x.shape)
        if isinstance(matrix, GgmlMatrix):
            return self._ggml(name, x, matrix, units=units)
        if isinstance(matrix, Int4Matrix) and matrix.group % PART_COLUMNS == 0:
            return self._int4(name, x, matrix, units=units)
        if not isinstance(matrix, Int8Matrix):
            raise ValueError(f"{name} cannot read {format_name(matrix)} with its groups")  # noqa: TRY004 - as every refusal
        out = x.new_empty(len(x), -(-matrix.num_rows // BLOCK_ROWS) * BLOCK_ROWS)
        tensors = {**parts_of(matrix), "x": x, "units": units, "out": out}
        self.call(f"{name}_int8", tensors, M=len(x), N=matrix.num_rows, K=x.shape[1])
        return out[:, : matrix.num_rows]

    @staticmethod
    def units(rows: int, columns: int) -> torch.Tensor:
        """Memory for rows of 8-bit integers (q8.h)."""
        return torch.empty(-(-columns // UNIT_COLUMNS), rows, UNIT_NBYTES, dtype=torch.uint8)

    def gemm_avx512bf16(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16, for a matrix in bf16."""
        return self._gemm_bf16("gemm_avx512bf16", x, matrix)

    def gemm_amx(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16."""
        return self._gemm_bf16("gemm_amx", x, matrix)

    def _gemm_bf16(self, name: str, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        x = _checked(x, matrix, torch.bfloat16, multiples=(BLOCK_ROWS, TILE_COLUMNS))
        rows, columns = x.shape
        if function_name(name, format_name(matrix)) not in self._functions:
            raise ValueError(f"{format_name(matrix)} is not for {name}")
        packed_x = x.new_empty(-(-rows // TILE_ROWS) * TILE_ROWS, columns)
        if isinstance(matrix, Int4Matrix):
            if matrix.group not in GEMM_GROUPS:
                raise ValueError(f"{name} cannot read groups of {matrix.group} columns")
            x_sums = x.view(rows, len(matrix.scale_zero), matrix.group).sum(-1, dtype=torch.float32)
            return self._int4(name, x, matrix, packed_x=packed_x, x_sums=x_sums)
        if isinstance(matrix, GgmlMatrix):
            return self._ggml(name, x, matrix, packed_x=packed_x)
        out = x.new_empty(rows, num_rows(matrix))
        tensors = {**parts_of(matrix), "x": x, "packed_x": packed_x, "out": out}
        self.call(function_name(name, format_name(matrix)), tensors, M=rows, N=out.shape[1], K=columns)
        return out

    def _int4(self, name: str, x: torch.Tensor, matrix: Int4Matrix, **scratch: torch.Tensor) -> torch.Tensor:
        out = x.new_empty(len(x), len(matrix.nibbles) * BLOCK_ROWS)
        tensors = {**parts_of(matrix), "x": x, **scratch, "out": out}
        sizes = {"M": len(x), "N": out.shape[1], "K": x.shape[1], "group": matrix.group}
        self.call(f"{name}_int4", tensors, **sizes, pair=PAIRS[matrix.format_name])
        return out[:, : matrix.num_rows]

    def _ggml(self, name: str, x: torch.Tensor, matrix: GgmlMatrix, **scratch: torch.Tensor) -> torch.Tensor:
        out = x.new_empty(len(x), -(-matrix.num_rows // BLOCK_ROWS) * BLOCK_ROWS)
        tensors = {**parts_of(matrix), "x": x, **scratch, "out": out}
        sizes = {"M": len(x), "N": matrix.num_rows, "K": x.shape[1]}
        self.call(f"{name}_ggml", tensors, **sizes, type=BLOCK_TYPES[matrix.type_name].number)
        return out[:, : matrix.num_rows]

    def decodes(self, matrix: Matrix) -> bool:
        """Whether `decode` exists at this level, for this matrix."""
        if Level.AVX2 not in self.levels or format_name(matrix) not in (*GGML, *DECODED):
            return False
        on_cpu = all(part.is_cpu for part in parts_of(matrix).values())
        return on_cpu and is_well_formed(matrix) and _is_contiguous(matrix)

    def decode(self, matrix: Matrix, out: torch.Tensor) -> torch.Tensor:
        """Dequantise into `out` [N, K] float32 or bf16, with the values of quant.dequantise.

        [1536, 2048] takes one thread 0.6 ms, and torch's operators 5 (Q8_0) to 27 (MXFP4).  Raises ValueError.
        """
        shape = (num_rows(matrix), num_columns(matrix))
        if not self.decodes(matrix) or out.dtype not in DTYPES or out.shape != shape or not out.is_contiguous():
            raise ValueError(f"{format_name(matrix)} {shape} cannot be decoded into {tuple(out.shape)} of {out.dtype}")
        tensors = {**parts_of(matrix), "out": out}
        sizes = {"N": shape[0], "K": shape[1], **_decode_sizes(matrix), "out_format": C_FORMATS[out.dtype]}
        self.call(function_name("decode_avx2", format_name(matrix)), tensors, **sizes)
        return out

    def supports_head_dim(self, head_dim: int) -> bool:
        """Whether `attend` exists at this level, for this head dimension."""
        return self._has_attention and head_dim % HEAD_DIM_MULTIPLE == 0 and head_dim <= MAX_HEAD_DIM

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        out: torch.Tensor,
        segments: torch.Tensor,
        window: int,
    ) -> None:
        """queries [T, heads, D] float32, keys and values [tokens, kv heads, D]; writes rows of segments to `out`.

        Keys and values are bf16 or float32.  `segments` [n, 6] int64 are QuerySegments.  A row sees `window` tokens
        back, including itself.  Its bits do not depend on other rows, on shared prefixes or on the threads.
        """
        if not self._has_attention:
            raise ValueError(f"there is no attention at level {self.level.label}")
        queries, (_, kv_heads, head_dim) = queries.contiguous(), keys.shape
        tensors = {"queries": queries, "keys": keys, "values": values, "out": out, "segments": segments}
        self._check_attention(tensors)
        groups = queries.shape[1] // kv_heads
        if window < 1 or not _are_in_bounds(segments, len(queries), len(keys), groups):
            raise ValueError(
                f"segments {segments.tolist()} or window {window} leave {len(queries)} rows, {len(keys)} KV tokens"
            )
        self.call(
            "attention_avx2",
            tensors,
            num_segments=len(segments),
            heads=kv_heads,
            groups=groups,
            D=head_dim,
            window=window,
            format=C_FORMATS[keys.dtype],
            scale=head_dim**-0.5,
        )

    def supports_states(self, value_head_dim: int) -> bool:
        """Whether `advance_states` exists at this level, for this head dimension."""
        return self._has_attention and value_head_dim % STATE_COLUMNS == 0

    def advance_states(self, tensors: Mapping[str, torch.Tensor], tokens: torch.Tensor) -> None:
        """Take states one token of the gated delta rule further, in place, and write the outputs.

        `tensors` in float32: q and k [T, K, Dk], v and out [T, V, Dv], decay and beta [T, V], states [n, V, Dk, Dv].
        `tokens` [2, count] int64: the row of each token, and its state, which no other token has.
        """
        key_heads, key_dim = tensors["q"].shape[1:]
        value_heads, value_dim = tensors["v"].shape[1:]
        _check_states(tensors, tokens)
        if not self.supports_states(value_dim) or value_heads % key_heads:
            raise ValueError(f"states of {value_heads} heads of {value_dim} cannot be advanced at {self.level.label}")
        sizes = {"count": tokens.shape[1], "K": key_heads, "V": value_heads, "Dk": key_dim, "Dv": value_dim}
        self.call("delta_avx2", {**tensors, "rows": tokens[0], "own": tokens[1]}, **sizes)

    def _check_attention(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raises ValueError for types, strides and shapes that do not match."""
        stored = tensors["keys"].dtype
        dtypes = (torch.float32, stored, stored, torch.float32, torch.int64)
        dtypes_match = stored in DTYPES and tuple(tensor.dtype for tensor in tensors.values()) == dtypes
        if not dtypes_match or not all(tensor.is_contiguous() for tensor in tensors.values()):
            raise ValueError(f"attention cannot read {[(t.dtype, t.stride()) for t in tensors.values()]}")
        queries, keys, values, out, _ = (tuple(tensor.shape) for tensor in tensors.values())
        _, kv_heads, head_dim = keys
        has_whole_groups = queries[1:] == (queries[1] // kv_heads * kv_heads, head_dim)
        if not has_whole_groups or out != queries or values != keys or not self.supports_head_dim(head_dim):
            raise ValueError(f"queries, keys, values and out do not go together: {[queries, keys, values, out]}")


@cache
def load(max_level: Level) -> CpuKernels:
    """The kernels up to a level, compiled at first use; those that do not work are left out."""
    library = open_library(kernel_dir(os.environ), max_level)
    for level, reason in library.left_out.items():
        event("kernels left out", level=level.label, reason=reason)
    cannot_build = library.functions is None and max_level >= Level.AVX512_BF16
    has_bf16 = library.level >= Level.AVX512_BF16 or (cannot_build and torch_has_bf16())
    return CpuKernels(library, has_bf16=has_bf16)


def _experts_level(levels: Collection[Level]) -> Level | None:
    """That of the kernels for whole experts: with tiles of bf16, products of many rows are faster than in integers."""
    if Level.AMX in levels:
        return None
    return next((level for level in (Level.AVX512_BF16, Level.AVX_VNNI, Level.AVX2) if level in levels), None)


def torch_has_bf16() -> bool:
    """Whether torch's own bf16 products use instructions for bf16, and do not emulate them."""
    if IS_X86:
        return torch.cpu._is_avx512_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def default(max_isa: str | None = None) -> CpuKernels:
    """The kernels that `max_isa` allows, otherwise the environment.  Raises ConfigError."""
    return load(cap(os.environ, max_isa))


def _decode_sizes(matrix: Matrix) -> dict[str, int]:
    """What `decode` must be told of a format besides N and K."""
    if isinstance(matrix, GgmlMatrix):
        return {"type": BLOCK_TYPES[matrix.type_name].number}
    if isinstance(matrix, Fp8Matrix):
        return {"rows": matrix.block[0], "columns": matrix.block[1]}
    assert isinstance(matrix, Int8GroupMatrix), "nothing else is decoded"
    return {"group": matrix.group, "scale_format": C_FORMATS[matrix.scale.dtype]}


def _is_contiguous(matrix: Matrix) -> bool:
    return all(part.is_contiguous() for part in parts_of(matrix).values())


def _checked(x: torch.Tensor, matrix: Matrix, dtype: torch.dtype, multiples: tuple[int, int]) -> torch.Tensor:
    """x, contiguous.  Raises ValueError for a matrix that a kernel would read past the end of."""
    shape = (num_rows(matrix), num_columns(matrix))
    has_own_tiles = isinstance(matrix, (Int4Matrix, GgmlMatrix)) and shape[1] > 0
    has_whole_tiles = has_own_tiles or not (0 in shape or any(map(int.__mod__, shape, multiples)))
    x_fits = (x.dtype, x.shape[1:]) == (dtype, (num_columns(matrix),))
    is_readable = format_name(matrix) in FORMATS and is_well_formed(matrix) and _is_contiguous(matrix)
    if not (is_readable and has_whole_tiles and x_fits):
        parts = [(tuple(part.shape), part.dtype) for part in parts_of(matrix).values()]
        raise ValueError(f"rows {tuple(x.shape)} of {x.dtype} do not go with a matrix {parts}, or not by this kernel")
    return x.contiguous()


def _check_states(tensors: Mapping[str, torch.Tensor], tokens: torch.Tensor) -> None:
    """Raises ValueError for what `advance_states` would read or write outside of."""
    (num_rows, *key_shape), (_, *value_shape), states = (tensors[name].shape for name in ("q", "v", "states"))
    shapes = {name: [num_rows, *shape] for name, shape in (("q", key_shape), ("k", key_shape))}
    shapes |= {"v": [num_rows, *value_shape], "out": [num_rows, *value_shape]}
    shapes |= {name: [num_rows, value_shape[0]] for name in ("decay", "beta")}
    shapes["states"] = [states[0], value_shape[0], key_shape[1], value_shape[1]]
    types_match = all(one.dtype == torch.float32 and one.is_contiguous() for one in tensors.values())
    shapes_match = {name: list(one.shape) for name, one in tensors.items()} == shapes
    is_list = tokens.dtype == torch.int64 and tokens.is_contiguous() and tokens.dim() == 2 and len(tokens) == 2
    limits = torch.tensor([[num_rows], [states[0]]])
    if not (types_match and shapes_match and is_list and bool(((tokens >= 0) & (tokens < limits)).all())):
        raise ValueError(f"states cannot be advanced by {[(n, t.dtype, tuple(t.shape)) for n, t in tensors.items()]}")


def _are_in_bounds(segments: torch.Tensor, num_rows: int, num_kv_tokens: int, groups: int) -> bool:
    """Whether no segment reaches outside the rows, the KV cache, or the arrays on a kernel's stack."""
    if segments.dim() != 2 or segments.shape[1] != SEGMENT_FIELDS:
        return False
    first_row, rows, position, kv_start, prefix_start, prefix = segments.unbind(1)
    own = (position + rows - prefix).clamp_min(0)
    rows_fit = (rows >= 1) & (rows * groups <= MAX_ATTENTION_ROWS) & (first_row + rows <= num_rows)
    kv_fits = (kv_start + own <= num_kv_tokens) & (prefix_start + prefix <= num_kv_tokens)
    return bool(((segments >= 0).all(1) & rows_fit & kv_fits).all())
