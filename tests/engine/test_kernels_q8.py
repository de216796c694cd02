"""Products with rows as 8-bit integers: those of integers to the bit, and as near to the real ones as llama.cpp's."""

from __future__ import annotations

import pytest
import torch
from emulated import HAS_AVX2, NATIVE_LEVELS, emulated_library, kernels_of
from matrices import INTEGER_FORMATS, ggml_matrix, int4_matrix, integer_matrix

from rotary_batch.engine.kernels.build import open_library
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import GGML_TYPES, Level
from rotary_batch.engine.kernels.quant import dequantise
from rotary_batch.model.ggml_types import BLOCK_TYPES

pytestmark = pytest.mark.skipif(not HAS_AVX2, reason="needs a C compiler and a processor with AVX2")
HAS_NATIVE = Level.AVX512_BF16 in NATIVE_LEVELS
AVX2, VNNI, AVX512 = "gemm_avx2_q8", "gemm_avxvnni_q8", "gemm_avx512_q8"
DTYPES = {AVX2: torch.float32, VNNI: torch.float32, AVX512: torch.bfloat16}
# By AVX2, by the others in plain C, and by these themselves where the processor has them.
RUNS = [("native", AVX2), ("emulated", VNNI), ("emulated", AVX512)]
RUNS += [("native", VNNI)] if Level.AVX_VNNI in NATIVE_LEVELS else []
RUNS += [("native", AVX512)] if HAS_NATIVE else []
# Rows of a matrix: fewer than a register's 16, not whole panels of 64, several.  Columns in units of 256, and 32s more.
SHAPES = [(1, 1, -224), (15, 1, 0), (130, 2, 96), (67, 3, 0), (64, 1, 32)]
# Rows of x: groups of 1 to 6, and more than the 256 that share a panel.
ROWS = [0, 1, 2, 3, 4, 5, 6, 7, 19, 257]


@pytest.fixture(scope="module")
def machines(tmp_path_factory, kernels_folder) -> dict[str, CpuKernels]:
    native = open_library(kernels_folder, max(NATIVE_LEVELS))
    return {
        "native": kernels_of(native),
        "emulated": kernels_of(emulated_library(tmp_path_factory.getbasetemp() / "emulated")),
    }


def in_8_bits(x: torch.Tensor) -> torch.Tensor:
    """Each 32 columns as multiples of their largest absolute value / 127."""
    parts = x.float().view(len(x), x.shape[1] // 32, 32)
    most = parts.abs().amax(-1, keepdim=True)
    codes = (parts * torch.div(torch.tensor(127.0), most)).round().nan_to_num(0)  # 0 where all are 0
    return (codes.double() * (most / 127).double()).view(x.shape)


def some(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Rows whose parts differ in size by powers of ten, one in ten of them 0."""
    generator = torch.Generator().manual_seed(rows + seed)
    noise = torch.randn(rows, columns // 32, 32, generator=generator)
    sizes = 10 ** torch.randint(-3, 4, (rows, columns // 32, 1), generator=generator)
    zeros = torch.rand(rows, columns // 32, 1, generator=generator) < 0.1
    return (noise * sizes).masked_fill(zeros, 0).view(rows, columns).bfloat16()


def values_of(matrix) -> torch.Tensor:
    return dequantise(matrix, torch.empty(matrix.num_rows, matrix.num_columns)).double()


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int16)


def multiply(machines, run: tuple[str, str], x: torch.Tensor, matrix) -> torch.Tensor:
    """The product of rows in bf16, which are given to the kernel in its own type; the result in bf16."""
    how, kernel = run
    product = getattr(machines[how], kernel)(x.to(DTYPES[kernel]), matrix)
    assert product.dtype == DTYPES[kernel]
    is_subnormal = product.abs() < torch.finfo(torch.float32).smallest_normal  # 0 where the instructions round to bf16
    return torch.where(is_subnormal, product * 0, product).bfloat16()


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("rows", "units", "more"), SHAPES)
@pytest.mark.parametrize("type_name", INTEGER_FORMATS)
def test_products_are_those_of_the_integers(machines, run, type_name, rows, units, more):
    """Within the rounding of the result to bf16, and of float32 sums."""
    matrix = integer_matrix(type_name, rows, 256 * units + (0 if type_name.endswith("K") else more))
    values = values_of(matrix)
    for count in ROWS if run[0] == "native" else ROWS[:-1]:
        x = some(count, matrix.num_columns)
        product, expected = multiply(machines, run, x, matrix), in_8_bits(x) @ values.T
        assert product.shape == (count, rows)
        slack = 1e-6 * (in_8_bits(x).abs() @ values.abs().T)
        assert ((product - expected).abs() <= 2**-8 * expected.abs() + slack).all(), count


@pytest.mark.parametrize("type_name", INTEGER_FORMATS)
def test_products_are_near_those_of_the_real_rows(machines, type_name):
    """The root mean square of the error is below 1 % of that of the results; llama.cpp's rows have the same codes."""
    matrix, x = integer_matrix(type_name, 256, 2048), torch.randn(32, 2048, generator=torch.Generator().manual_seed(1))
    expected = x.bfloat16().double() @ values_of(matrix).T
    error = multiply(machines, RUNS[0], x.bfloat16(), matrix) - expected
    assert error.square().mean().sqrt() <= 0.01 * expected.square().mean().sqrt()


@pytest.mark.parametrize("type_name", INTEGER_FORMATS)
def test_every_level_gives_the_same_bits(machines, type_name):
    matrix, x = integer_matrix(type_name, 70, 512), some(9, 512)
    for scale in (1.0, 1e-30, 1e-38, 1e30):
        first, *others = (multiply(machines, run, x * scale, matrix) for run in RUNS)
        assert all(torch.equal(bits(first), bits(other)) for other in others), scale


@pytest.mark.parametrize("run", [RUNS[0], RUNS[-1]])
@pytest.mark.parametrize("type_name", INTEGER_FORMATS)
def test_the_bits_of_a_row_depend_on_no_other_row(machines, threads, run, type_name):
    matrix, x = integer_matrix(type_name, 130, 768), some(300, 768)
    together = multiply(machines, run, x, matrix)
    for first, count in ((0, 1), (3, 2), (17, 5), (250, 50)):
        alone = multiply(machines, run, x[first : first + count], matrix)
        assert torch.equal(bits(alone), bits(together[first : first + count]))
    threads(3)
    assert torch.equal(bits(multiply(machines, run, x, matrix)), bits(together))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("type_name", GGML_TYPES)
def test_blocks_may_begin_at_any_byte(machines, run, type_name):
    aligned, x = ggml_matrix(type_name, 67, 512), some(3, 512)
    buffer = torch.empty(aligned.blocks.numel() + 1, dtype=torch.uint8)
    matrix = aligned._replace(blocks=buffer[1:].view(aligned.blocks.shape).copy_(aligned.blocks))
    products = [multiply(machines, run, x, one) for one in (matrix, aligned)]
    assert torch.equal(*map(bits, products))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("type_name", GGML_TYPES)
def test_codes_as_large_as_they_can_be(machines, run, type_name):
    """Every byte of the codes is 255 or 0, and every code of x is 127 or -127: no sum of integers may overflow."""
    block_type = BLOCK_TYPES[type_name]
    begin = {"Q4_0": 2, "Q4_1": 4, "Q8_0": 2, "Q4_K": 16, "Q5_K": 16, "Q6_K": 0, "MXFP4": 1}[type_name]
    for byte in (0, 127, 128, 247, 255):  # 128 is -128 in Q8_0; 7 is the largest of MXFP4, 15 the least
        matrix = ggml_matrix(type_name, 3, 512)
        blocks = matrix.blocks.view(-1, block_type.nbytes).clone()
        blocks[:, begin : 192 if type_name == "Q6_K" else None] = byte
        matrix = matrix._replace(blocks=blocks.view(3, -1))
        x = torch.ones(2, 512)
        x[1, ::2] = -1
        expected = x.double() @ values_of(matrix).T
        slack = 1e-6 * (x.double().abs() @ values_of(matrix).abs().T)
        product = multiply(machines, run, x.bfloat16(), matrix)
        assert ((product - expected).abs() <= 2**-8 * expected.abs() + slack).all(), byte


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["int4", "int8"])
def test_own_codes_as_large_as_they_can_be(machines, run, name):
    for byte in (0, 127, 128, 240, 255):
        matrix = integer_matrix(name, 3, 512)
        codes = matrix[0].view(torch.uint8)
        matrix = matrix._replace(**{matrix._fields[0]: torch.full_like(codes, byte).view(matrix[0].dtype)})
        x = torch.ones(2, 512)
        x[1, ::2] = -1
        expected = x.double() @ values_of(matrix).T
        slack = 1e-6 * (x.double().abs() @ values_of(matrix).abs().T)
        product = multiply(machines, run, x.bfloat16(), matrix)
        assert ((product - expected).abs() <= 2**-8 * expected.abs() + slack).all(), byte


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("type_name", ["Q4_K", "Q6_K", "MXFP4"])
def test_extreme_scales(machines, run, type_name):
    """The smallest and the largest exponents of a matrix."""
    matrix = ggml_matrix(type_name, 64, 512)
    blocks = matrix.blocks.view(64, -1, BLOCK_TYPES[type_name].nbytes).clone()
    if type_name == "MXFP4":
        blocks[:, :, 0] = torch.arange(64, dtype=torch.uint8)[:, None] * 2
    else:
        begin = {"Q4_K": 0, "Q6_K": 208}[type_name]
        blocks[:, :, begin : begin + 2] = torch.tensor([0xFF, 0x03], dtype=torch.uint8)  # a subnormal float16
    matrix = matrix._replace(blocks=blocks.view(64, -1))
    x = some(3, 512).clamp(-8, 8)
    expected, product = in_8_bits(x) @ values_of(matrix).T, multiply(machines, run, x, matrix)
    slack = 1e-6 * (in_8_bits(x).abs() @ values_of(matrix).abs().T) + 1e-38
    assert ((product - expected).abs() <= 2**-8 * expected.abs() + slack).all()


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("type_name", INTEGER_FORMATS)
def test_what_is_finite_stays_so_and_what_is_not_stays_visible(machines, run, type_name):
    """The smallest and the largest numbers, alone and next to others; in a row with NaN or infinity every result is
    not finite, and no other row changes."""
    matrix, x = integer_matrix(type_name, 64, 512), some(4, 512)
    tiny, huge = torch.finfo(torch.bfloat16).smallest_normal / 64, 1e34
    for value in (0.0, tiny, huge):
        assert multiply(machines, run, torch.full((1, 512), value).bfloat16(), matrix).isfinite().all(), value
        one = x.clone()
        one[1, 7] = value
        assert multiply(machines, run, one, matrix).isfinite().all(), value
    expected = multiply(machines, run, x, matrix)
    for value in (float("nan"), float("inf"), float("-inf")):
        damaged = x.clone()
        damaged[2, 300] = value
        product = multiply(machines, run, damaged, matrix)
        assert not product[2].isfinite().any()
        assert torch.equal(bits(product[[0, 1, 3]]), bits(expected[[0, 1, 3]]))


@pytest.mark.parametrize("kernel", [AVX2, VNNI, AVX512])
def test_other_formats_and_rows_are_refused(machines, kernel):
    emulated, x = machines["emulated"], some(2, 256).to(DTYPES[kernel])
    for matrix in (torch.zeros(64, 256, dtype=torch.bfloat16), ggml_matrix("Q2_K", 64, 256)):
        with pytest.raises(ValueError, match=rf"{kernel} cannot read|do not go with"):
            getattr(emulated, kernel)(x, matrix)
    with pytest.raises(ValueError, match="cannot read int4 with its groups"):
        getattr(emulated, kernel)(some(2, 192).to(DTYPES[kernel]), int4_matrix(64, 192, 48, torch.bfloat16))
    for wrong in (x.double(), x[:, :128]):
        with pytest.raises(ValueError, match="do not go with"):
            getattr(emulated, kernel)(wrong, ggml_matrix("Q4_K", 64, 256))
