"""The compiled kernels: right for every format and shape, at every level, on the processor or emulated."""

from __future__ import annotations

import dataclasses
import random
from functools import partial

import pytest
import torch
from emulated import HAS_AVX2, NATIVE_LEVELS, emulated_library, kernels_of
from matrices import fp8_matrix, ggml_matrix, int4_matrix, int8_group_matrix

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.cpu import CpuAttention
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.kernels import linear
from rotary_batch.engine.kernels.build import open_library
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import CANDIDATES, GGML, GGML_TYPES, RARE_TYPES, Level
from rotary_batch.engine.kernels.linear import FastMatmul
from rotary_batch.engine.kernels.matrices import Fp8Matrix, Int4Matrix
from rotary_batch.engine.kernels.quant import dequantise, matrix_from, quantise
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.manifest import Manifest

pytestmark = pytest.mark.skipif(not HAS_AVX2, reason="needs a C compiler and a processor with AVX2")
# Each kernel by the processor where it can, and all that need more than AVX2 emulated as well.
RUNS = [("native", level) for level in NATIVE_LEVELS] + [("emulated", Level.AVX512_BF16), ("emulated", Level.AMX)]
KERNELS = {
    "gemm_avx2": (Level.AVX2, torch.float32),
    "gemv_avx512bf16": (Level.AVX512_BF16, torch.bfloat16),
    "gemm_avx512bf16": (Level.AVX512_BF16, torch.bfloat16),
    "gemm_amx": (Level.AMX, torch.bfloat16),
}
# Rows below, at and above what goes at once: registers of 3, 4 and 8, tiles of 16, the counts of gemm_avx2.c (48, 192)
# and of gemm_bf16.c (256).
ROWS = {
    "gemm_avx2": [0, 1, 2, 3, 4, 8, 47, 48, 49, 50, 192, 193, 385],
    "gemv_avx512bf16": [1, 2, 3, 4],
    "gemm_avx512bf16": [1, 2, 5, 7, 8, 9, 15, 16, 17, 33, 255, 256, 257],
    "gemm_amx": [1, 2, 5, 15, 16, 17, 32, 33, 48, 256, 257],
}
# Blocks of 64 outputs that are whole or not; parts of the columns that go at once, all of them, and more.
SHAPES = {
    "gemm_avx2": [(64, 128), (100, 96), (4, 8), (448, 1288), (200, 2336)],
    "gemv_avx512bf16": [(4, 32), (64, 32), (132, 96), (448, 1280), (64, 2336)],
    "gemm_avx512bf16": [(64, 32), (128, 96), (192, 512), (64, 2336)],
    "gemm_amx": [(64, 32), (128, 96), (192, 512), (64, 2336)],
}
FORMATS = {"gemv_avx512bf16": ["bf16"], "gemm_avx512bf16": ["bf16"]}  # others: all three
CASES = [
    (how, kernel, stored_as, out, inner)
    for how, level in RUNS
    for kernel in KERNELS
    for stored_as in FORMATS.get(kernel, ["bf16", "int8", "int4"])
    for out, inner in SHAPES[kernel]
    if KERNELS[kernel][0] == level and not (stored_as == "int4" and inner % 32)
]


# Blocks of GGUF files, of 32 and of 256 columns: any number of rows; fewer columns than go at once, and more.
GGML_ROWS = {"gemm_amx": [5, 16, 33, 257]}  # others: test_kernels_q8.py
GGML_CASES = [
    (how, kernel, stored_as, rows, 256 * columns + (0 if stored_as.endswith("K") else extra))
    for how, level in RUNS
    for kernel in GGML_ROWS
    for stored_as in GGML
    for rows, columns, extra in [(1, 1, -224), (130, 2, 96), (67, 3, 0)]
    if KERNELS[kernel][0] == level
]
PAIRS = {"int4:f16": torch.float16, "int4:f32": torch.float32}
FP8_BLOCKS = [(128, 128), (1, 750), (67, 750), (3, 7)]  # of whole matrices of 67 rows by 750 columns, and cut short
INT8_SCALES = [(750, torch.float32), (30, torch.float16), (50, torch.bfloat16), (1, torch.float32)]


@pytest.fixture(scope="module")
def machines(tmp_path_factory, kernels_folder) -> dict[str, CpuKernels]:
    """This processor's kernels, and those of an emulated processor with AMX."""
    native = open_library(kernels_folder, max(NATIVE_LEVELS))  # that of every test
    emulated = emulated_library(tmp_path_factory.getbasetemp() / "emulated")
    assert [dict(native.left_out), dict(emulated.left_out)] == [{}, {}]
    assert (native.level, emulated.level) == (max(NATIVE_LEVELS), Level.AMX)
    return {"native": kernels_of(native), "emulated": kernels_of(emulated)}


@pytest.fixture
def kernels(machines) -> CpuKernels:
    return machines["native"]


def stored(out: int, inner: int, stored_as: str):
    if stored_as in GGML:
        return ggml_matrix(stored_as.removeprefix("ggml:"), out, inner)
    if stored_as in PAIRS:
        return int4_matrix(out, inner, 32, PAIRS[stored_as])
    weight = torch.randn(out, inner, generator=torch.Generator().manual_seed(out)).bfloat16()
    return matrix_from(quantise(weight, stored_as), out, stored_as)


def some(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).add(0.5).to(dtype)


@pytest.mark.parametrize(("how", "kernel", "stored_as", "out", "inner"), CASES)
def test_products_are_those_of_the_reference(machines, how, kernel, stored_as, out, inner):
    matrix, (_, dtype) = stored(out, inner, stored_as), KERNELS[kernel]
    multiply, values = getattr(machines[how], kernel), dequantise(matrix, torch.empty(out, inner)).double()
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8  # of the largest number; bf16 is rounded once
    for rows in ROWS[kernel] if how == "native" else ROWS[kernel][:-1]:
        x = some(rows, inner, dtype)
        expected, product = x.double() @ values.T, multiply(x, matrix)
        assert (product.shape, product.dtype) == ((rows, out), dtype)
        assert not rows or (product - expected).abs().max() <= tolerance * expected.abs().max(), rows


@pytest.mark.parametrize(("how", "kernel", "stored_as", "out", "inner"), GGML_CASES)
def test_products_of_blocks_are_those_of_the_reference(machines, how, kernel, stored_as, out, inner):
    """In tiles the weights are those of the reference in bf16."""
    matrix, (_, dtype) = stored(out, inner, stored_as), KERNELS[kernel]
    weights_dtype = torch.bfloat16 if kernel == "gemm_amx" else torch.float32
    values = dequantise(matrix, torch.empty(out, inner, dtype=weights_dtype)).double()
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    for rows in GGML_ROWS[kernel] if how == "native" else GGML_ROWS[kernel][:-1]:
        x = some(rows, inner, dtype)
        expected, product = x.double() @ values.T, getattr(machines[how], kernel)(x, matrix)
        assert (product.shape, product.dtype) == ((rows, out), dtype)
        assert not rows or (product - expected).abs().max() <= tolerance * expected.abs().max(), rows


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("stored_as", PAIRS)
@pytest.mark.parametrize(
    ("how", "kernel"),
    [(how, name) for how, level in RUNS for name in KERNELS if KERNELS[name][0] == level and name not in FORMATS],
)
def test_int4_of_a_file(machines, how, kernel, stored_as, group):
    """Scale and zero in float16 and float32, any group."""
    matrix, dtype = int4_matrix(100, 384, group, PAIRS[stored_as]), KERNELS[kernel][1]
    values, x = dequantise(matrix, torch.empty(100, 384)).double(), some(5, 384, dtype)
    expected, product = x.double() @ values.T, getattr(machines[how], kernel)(x, matrix)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    assert (product - expected).abs().max() <= tolerance * expected.abs().max()


DECODABLE = {
    **{f"ggml:{name}": partial(ggml_matrix, name, 67, 768) for name in (*GGML_TYPES, *RARE_TYPES)},
    **{f"fp8:{rows}x{columns}": partial(fp8_matrix, 67, 750, (rows, columns)) for rows, columns in FP8_BLOCKS},
    **{f"int8:{group}:{dtype}": partial(int8_group_matrix, 67, 750, group, dtype) for group, dtype in INT8_SCALES},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DECODABLE)
def test_decoded_weights_are_those_of_the_reference(kernels, name, dtype):
    """To the last bit; parts of a matrix that lie at odd addresses, and none of it.

    Types that have products of their own may lose the sign of 0, which changes no product.
    """
    matrix = DECODABLE[name]()
    for part in (matrix, matrix.rows(slice(3, 36)), matrix.rows(slice(0, 0))):
        out = torch.empty(part.num_rows, part.num_columns, dtype=dtype)
        expected = dequantise(part, torch.empty_like(out))
        assert torch.equal(kernels.decode(part, out), expected)
        assert name in GGML or torch.equal(out.view(torch.uint8), expected.view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_float8_is_decoded(kernels, dtype):
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)[None]
    for scale in (1.0, -1e-3, 3e38, 1e-38, float("inf")):
        matrix = Fp8Matrix(values, torch.tensor([[scale]]), (1, 256))
        found, expected = (how(matrix, torch.empty(1, 256, dtype=dtype)) for how in (kernels.decode, dequantise))
        is_nan = expected.isnan()
        assert torch.equal(found.isnan(), is_nan)
        assert torch.equal(found[~is_nan].view(torch.uint8), expected[~is_nan].view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 5, 40])
@pytest.mark.parametrize("name", [name for name in DECODABLE if name not in GGML])
def test_what_is_decoded_first_is_multiplied_by_the_values_of_the_reference(kernels, monkeypatch, name, rows, dtype):
    """Also where some rows of the matrix go at a time."""
    matrix = DECODABLE[name]()
    fast = FastMatmul(torch.device("cpu"), kernels)
    for tile_nbytes in (linear.DECODED_NBYTES, 1):
        monkeypatch.setattr(linear, "DECODED_NBYTES", tile_nbytes)
        values = dequantise(matrix, torch.empty(67, matrix.num_columns, dtype=dtype)).double()
        x = some(rows, matrix.num_columns, dtype)
        assert kernels.kernel_for(x, matrix) == "torch_decoded"
        expected, product = x.double() @ values.T, fast.linear(x, matrix)
        tolerance = 1e-5 if dtype == torch.float32 else 2**-8
        assert (product.shape, product.dtype) == ((rows, 67), dtype)
        assert not rows or (product - expected).abs().max() <= tolerance * expected.abs().max()


def test_what_cannot_be_decoded_is_refused(machines):
    matrix, kernels = stored(4, 512, "ggml:Q4_K"), machines["emulated"]
    bad = [(matrix._replace(blocks=matrix.blocks[:, :-1]), torch.empty(4, 256)), (matrix, torch.empty(4, 256))]
    bad += [(matrix, torch.empty(4, 512).double()), (matrix, torch.empty(512, 4).T), (matrix, torch.empty(3, 512))]
    groups, fp8 = int8_group_matrix(4, 512, 32, torch.float16), fp8_matrix(4, 512, (2, 128))
    bad += [(groups._replace(scale=groups.scale[:3]), torch.empty(4, 512))]
    bad += [
        (fp8._replace(scale=fp8.scale[:, :3]), torch.empty(4, 512)),
        (fp8._replace(block=(0, 128)), torch.empty(4, 512)),
    ]
    for one, out in bad:
        with pytest.raises(ValueError, match="cannot be decoded"):
            kernels.decode(one, out)
    assert not kernels.decodes(stored(64, 128, "int4"))


@pytest.mark.parametrize(
    ("kernel", "stored_as"),
    [
        (kernel, stored_as)
        for kernel in ("gemm_avx512bf16", "gemm_amx")
        if KERNELS[kernel][0] in NATIVE_LEVELS
        for stored_as in FORMATS.get(kernel, ["bf16", "int8", "int4", "int4:f16", "int4:f32"])
    ],
)
def test_the_emulation_gives_the_bits_of_the_processor(machines, kernel, stored_as):
    """Numbers below the normal ones too, which these instructions take as 0."""
    matrix, x = stored(64, 544, stored_as), some(37, 544, torch.bfloat16)
    for scale in (1.0, 1e-38, 1e38):
        products = [getattr(machines[how], kernel)(x * scale, matrix) for how in ("native", "emulated")]
        assert torch.equal(products[0].view(torch.int16), products[1].view(torch.int16)), scale


@pytest.mark.parametrize("how", ["native", "emulated"])
@pytest.mark.parametrize("stored_as", ["bf16", "int8", "int4", "ggml:Q4_K", "ggml:MXFP4"])
def test_threads_and_rows_that_share_a_product_change_no_bit(machines, stored_as, threads, how):
    matrix, kernels = stored(448, 1280, stored_as), machines[how]
    names = [name for name, (level, _) in KERNELS.items() if level in kernels.levels and not name.startswith("gemv")]
    names = [name for name in names if name in GGML_ROWS or stored_as not in GGML]
    names = [name for name in names if stored_as in FORMATS.get(name, [stored_as])]
    for name in names:
        x, products = some(70, 1280, KERNELS[name][1]), []
        for count in (1, 3):
            threads(count)
            products.append(getattr(kernels, name)(x, matrix))
        assert torch.equal(*products)
        if name != "gemm_avx2":  # which has another order of sums for up to 48 rows
            assert torch.equal(products[0][:5], getattr(kernels, name)(x[:5], matrix))


@pytest.fixture
def threads():
    """Sets how many threads there are, until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_rows_that_are_not_next_to_each_other(kernels):
    matrix, wide = stored(64, 128, "bf16"), torch.randn(5, 256)
    assert torch.equal(kernels.gemm_avx2(wide[:, :128], matrix), kernels.gemm_avx2(wide[:, :128].contiguous(), matrix))


def _bad_matrices():
    """Matrices [128, 96] of rows of 96 numbers, each with one thing that a kernel would trip over."""
    int4, int8 = stored(128, 96, "int4"), stored(128, 96, "int8")
    yield from (stored(128, 192, "bf16")[:, :96], stored(96, 128, "bf16").T, stored(128, 96, "bf16").float())
    yield from (stored(128, 64, "bf16"), stored(126, 96, "bf16"), stored(128, 100, "bf16"))
    yield from (int8._replace(scale=int8.scale[:64]), int8._replace(values=int8.values.float()))
    yield from (int8._replace(scale=int8.scale.double()), int8._replace(values=int8.values[:, :64]))
    yield from (int4._replace(nibbles=int4.nibbles[:, :64]), int4._replace(scale_zero=int4.scale_zero[:, :64]))
    yield from (int4._replace(nibbles=int4.nibbles[:1]), int4._replace(scale_zero=int4.scale_zero.double()))
    blocks, wide = stored(128, 96, "ggml:Q8_0"), stored(128, 192, "ggml:Q8_0")
    yield from (blocks._replace(blocks=wide.blocks[:, :102]), blocks._replace(blocks=blocks.blocks[:, :101]))
    yield from (wide, blocks._replace(blocks=blocks.blocks[:, :66].contiguous(), type_name="Q5_0"))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("number", range(len(list(_bad_matrices()))))
def test_what_a_kernel_would_read_past_the_end_of_is_refused(machines, kernel, number):
    matrix, x = list(_bad_matrices())[number], some(3, 96, KERNELS[kernel][1])
    with pytest.raises(ValueError, match=r"rows \(3, 96\).*do not go with a matrix"):
        getattr(machines["emulated"], kernel)(x, matrix)


def test_rows_of_another_type_count_or_group_are_refused(machines):
    kernels = machines["emulated"]
    for kernel, (_, dtype) in KERNELS.items():
        other = torch.float32 if dtype == torch.bfloat16 else torch.bfloat16
        with pytest.raises(ValueError, match="do not go with"):
            getattr(kernels, kernel)(some(3, 96, other), stored(128, 96, "bf16"))
    for rows, stored_as in ((0, "bf16"), (5, "bf16"), (3, "ggml:Q8_0"), (3, "int4")):
        with pytest.raises(ValueError, match="not for gemv"):
            kernels.gemv_avx512bf16(some(rows, 96, torch.bfloat16), stored(128, 96, stored_as))
    wide = Int4Matrix(torch.zeros(1, 1024, 32, dtype=torch.uint8), torch.zeros(1, 64, 2, dtype=torch.bfloat16), 64)
    with pytest.raises(ValueError, match="groups of 1024"):
        kernels.gemm_amx(some(3, 1024, torch.bfloat16), wide)


@pytest.mark.parametrize(
    "candidate", [candidate for candidate in CANDIDATES if not candidate.kernel.startswith("torch_")]
)
def test_what_is_chosen_can_be_done(machines, candidate):
    """The smallest matrix and rows that the table gives to a kernel."""
    out, inner = (max(size, 256) for size in candidate.multiples)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[candidate.x_dtype]
    for stored_as in candidate.formats:
        matrix, x = stored(out, inner, stored_as), some(candidate.rows[0], inner, dtype)
        assert getattr(machines["emulated"], candidate.kernel)(x, matrix).shape == (candidate.rows[0], out)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("window", [None, 9, 64])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"), [(8, 2, 64), (4, 4, 32), (16, 2, 128), (12, 2, 96), (2, 1, 256), (24, 2, 32)]
)
def test_attention_is_that_of_torch(kernels, mixed_segments, heads, kv_heads, dim, window, dtype, apart):
    """Decode segments, drafts and a prompt; with a shared prefix and without; contexts of one token to several tiles."""
    geometry = dataclasses.replace(
        Manifest.load(EMBEDDED).geometry,
        num_layers=2,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim,
        sliding_window=window,
    )
    segments = [
        *mixed_segments,
        QuerySegment(19, 8, 100, 350, 10, 70),
        *[QuerySegment(27 + n, 1, 64 + n, 400 + 20 * n, 10, 60) for n in range(5)],
    ]
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    kv = KvArena(geometry, 520, "bf16", torch.bfloat16, cpu)
    noise = [torch.randn(520, kv_heads, dim, generator=generator) for _ in range(2)]
    kv.write(1, torch.arange(520), *noise)
    queries = torch.randn(32, heads, dim, generator=generator).to(dtype)
    outputs = []
    for attention in (GatherAttention(geometry, dtype, cpu), CpuAttention(geometry, dtype, cpu, kernels)):
        attention.plan(segments)
        outputs.append(attention.attend(1, queries, kv))
    assert [out.dtype for out in outputs] == [dtype, dtype]
    assert (outputs[0] - outputs[1]).abs().max() <= apart


@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize("num_siblings", [1, 2, 9, 40])
def test_siblings_get_what_each_gets_alone(kernels, num_siblings, window):
    """In one call and in one for each, in any order, among others: more rows than a block has room for, and drafts."""
    geometry = dataclasses.replace(
        Manifest.load(EMBEDDED).geometry, num_layers=1, num_heads=6, num_kv_heads=2, head_dim=32, sliding_window=window
    )
    draw, generator = random.Random(num_siblings), torch.Generator().manual_seed(0)
    segments, row = [], 0
    for n in range(num_siblings):
        rows, own = draw.choice((1, 1, 3)), draw.randint(0, 70)
        segments.append(QuerySegment(row, rows, 100 + own, 400 + 75 * n, *draw.choice(((20, 100), (200, 100), (0, 0)))))
        row += rows
    num_tokens = 500 + 75 * num_siblings + 200
    kv = KvArena(geometry, num_tokens, "bf16", torch.bfloat16, torch.device("cpu"))
    kv.write(0, torch.arange(num_tokens), *(torch.randn(num_tokens, 2, 32, generator=generator) for _ in "kv"))
    queries = torch.randn(row, 6, 32, generator=generator)
    draw.shuffle(segments)
    attention = CpuAttention(geometry, torch.float32, torch.device("cpu"), kernels)
    attention.plan(segments)
    together = attention.attend(0, queries, kv)
    for segment in segments:
        attention.plan([segment])
        torch.testing.assert_close(
            attention.attend(0, queries, kv)[segment.rows()], together[segment.rows()], atol=1e-6, rtol=1e-5
        )


def test_scores_that_differ_by_hundreds(kernels):
    """Weights of 0 and 1, and a best score that comes in the last tile."""
    keys = torch.linspace(-1, 1, 200).repeat(32, 1).T[:, None].contiguous().bfloat16()
    values = torch.arange(200.0)[:, None, None].expand(200, 1, 32).contiguous().bfloat16()
    for sign, wanted in ((100.0, 199.0), (-100.0, 0.0)):
        queries, out = torch.full((1, 1, 32), sign), torch.zeros(1, 1, 32)
        kernels.attend(queries, keys, values, out, torch.tensor([[0, 1, 199, 0, 0, 0]]), 200)
        assert (out - wanted).abs().max() < 1


def test_what_is_not_finite_stays_visible(kernels):
    """A damaged key must not become an answer: the engine refuses logits that are not finite."""
    keys = torch.zeros(10, 1, 32, dtype=torch.bfloat16)
    for damage in (float("nan"), float("inf")):
        keys[4] = damage
        out = torch.zeros(1, 1, 32)
        kernels.attend(torch.ones(1, 1, 32), keys, torch.zeros_like(keys), out, torch.tensor([[0, 1, 9, 0, 0, 0]]), 10)
        assert out.isnan().all()


SEGMENT = [0, 1, 9, 0, 0, 0]  # row 0 of a sequence of 10 tokens, none of them shared


@pytest.mark.parametrize(
    "segment",
    [
        [0, 1, 10, 0, 0, 0],
        [0, 1, 9, 1, 0, 0],
        [1, 1, 9, 0, 0, 0],
        [0, 2, 8, 0, 0, 0],
        [0, 0, 9, 0, 0, 0],
        [-1, 1, 9, 0, 0, 0],
        [0, 1, 9, -1, 0, 0],
        [0, 1, -1, 0, 0, 0],
        [0, 1, 9, 0, 8, 3],
        [0, 1, 9, 0, -1, 3],
    ],
)
def test_segments_that_leave_their_rows_or_kv_tokens_are_refused(kernels, segment):
    queries, keys = torch.zeros(1, 1, 32), torch.zeros(10, 1, 32, dtype=torch.bfloat16)
    kernels.attend(queries, keys, keys, torch.zeros(1, 1, 32), torch.tensor([SEGMENT]), 10)
    with pytest.raises(ValueError, match="leave 1 rows, 10 KV tokens"):
        kernels.attend(queries, keys, keys, torch.zeros(1, 1, 32), torch.tensor([SEGMENT, segment]), 10)


def test_attention_refuses_what_does_not_go_together(kernels):
    queries, keys, out = torch.zeros(1, 2, 32), torch.zeros(10, 1, 32, dtype=torch.bfloat16), torch.zeros(1, 2, 32)
    segments = torch.tensor([SEGMENT])
    bad = [
        (queries.double(), keys, keys, out, segments),
        (queries, keys.float(), keys, out, segments),
        (queries, keys, keys[:9], out, segments),
        (queries, keys, keys, out[:, :1], segments),
        (queries, keys, keys, out, segments[:, :5]),
        (queries, keys, keys, out, segments.int()),
        (queries[..., :16], keys[..., :16], keys[..., :16], out[..., :16], segments),
        (torch.zeros(1, 80, 32), keys, keys, torch.zeros(1, 80, 32), segments),
    ]
    for arguments in bad:
        with pytest.raises(ValueError, match=r"attention cannot read|do not go together|leave"):
            kernels.attend(*arguments, 10)
    with pytest.raises(ValueError, match="window 0"):
        kernels.attend(queries, keys, keys, out, segments, 0)
