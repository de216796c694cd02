"""The experts of a layer in one call: what their products one by one give, whatever shares the call."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from emulated import HAS_AVX2, NATIVE_LEVELS, emulated_library, kernels_of
from matrices import INTEGER_FORMATS, ggml_matrix, int4_matrix, integer_matrix

from rotary_batch.engine.kernels.build import open_library
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import Level
from rotary_batch.engine.kernels.experts import ROWS, Activation, ExpertAddresses, LayerProducts
from rotary_batch.engine.kernels.matrices import Int4Matrix
from rotary_batch.engine.kernels.quant import dequantise
from rotary_batch.engine.offload.source import Slab

pytestmark = pytest.mark.skipif(not HAS_AVX2, reason="needs a C compiler and a processor with AVX2")
RUNS = ["avx2", "emulated vnni", "emulated"]
RUNS += [name for name, level in (("vnni", Level.AVX_VNNI), ("native", Level.AVX512_BF16)) if level in NATIVE_LEVELS]
SWIGLU, CLAMPED = Activation(0.0, 0.0), Activation(2.0, 1.702)


@pytest.fixture(scope="module")
def machines(tmp_path_factory, kernels_folder) -> dict[str, CpuKernels]:
    """By AVX2, by AVX-512 in plain C, and by AVX-512 itself where the processor has it; AMX would be preferred."""
    native = open_library(kernels_folder, max(NATIVE_LEVELS))
    emulated = emulated_library(tmp_path_factory.getbasetemp() / "emulated")
    libraries = {"avx2": (native, Level.AVX2), "emulated vnni": (emulated, Level.AVX_VNNI)}
    libraries |= {"vnni": (native, Level.AVX_VNNI), "native": (native, Level.AVX512_BF16)}
    libraries |= {"emulated": (emulated, Level.AVX512_BF16)}
    return {
        how: kernels_of(library._replace(levels=frozenset(one for one in library.levels if one <= level)))
        for how, (library, level) in libraries.items()
        if how in RUNS
    }


def slab(types: tuple[str, str], hidden: int, middle: int, seed: int, *, split: bool = False, biased: bool = False):
    both, down = integer_matrix(types[0], 2 * middle, hidden, seed), integer_matrix(types[1], hidden, middle, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    biases = [torch.randn(size, generator=generator) for size in (2 * middle, hidden)] if biased else [None, None]
    gate_up = (rows_of(both, 0, middle), rows_of(both, middle, 2 * middle)) if split else (both,)
    return Slab(gate_up, down, *biases)


def rows_of(matrix, first: int, end: int):
    if not isinstance(matrix, Int4Matrix):
        return matrix.rows(slice(first, end))
    pairs = matrix.scale_zero[:, first:end].contiguous()
    return Int4Matrix(matrix.nibbles[first // 64 : end // 64], pairs, end - first)


def in_8_bits(x: torch.Tensor) -> torch.Tensor:
    parts = x.float().view(len(x), x.shape[1] // 32, 32)
    most = parts.abs().amax(-1, keepdim=True)
    codes = (parts * torch.div(torch.tensor(127.0), most)).round().nan_to_num(0)
    return (codes.double() * (most / 127).double()).view(x.shape)


def values_of(matrix) -> torch.Tensor:
    return dequantise(matrix, torch.empty(matrix.num_rows, matrix.num_columns)).double()


def reference(x: torch.Tensor, slab: Slab, activation: Activation, rounded) -> torch.Tensor:
    """In float64, the inputs of products rounded."""
    both = torch.cat([rounded(x) @ values_of(matrix).T for matrix in slab.gate_up], 1)
    gate, up = (both if slab.gate_up_bias is None else both + slab.gate_up_bias).chunk(2, 1)
    if activation.limit:
        gate, up = gate.clamp(max=activation.limit), up.clamp(-activation.limit, activation.limit) + 1
    middle = gate * up / (1 + torch.exp(-(activation.alpha if activation.limit else 1) * gate))
    out = rounded(middle) @ values_of(slab.down).T
    return out if slab.down_bias is None else out + slab.down_bias


def some(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).mul(0.05).bfloat16()


def run(kernels: CpuKernels, x, slabs: list[Slab], rows: list[list[int]], activation=SWIGLU, *, together=True):
    """Each slab on its rows of x, in the type of the kernel's rows; out [A, H], in bf16."""
    flat, dtype = torch.tensor([row for own in rows for row in own]), ROWS[kernels.experts_level][1]
    products = LayerProducts(kernels, x.to(dtype), flat, activation)
    out, first, calls = torch.full((len(flat), x.shape[1]), float("nan"), dtype=dtype), 0, []
    for one, own in zip(slabs, rows, strict=True):
        calls.append((one.addresses, range(first, first + len(own))))
        first += len(own)
    for call in [calls] if together else [[one] for one in calls]:
        products.run(call, out)
    return out.bfloat16()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int16)


GGML_PAIRS = [("Q4_K", "Q6_K"), ("MXFP4", "MXFP4"), ("Q8_0", "Q4_1"), ("Q5_K", "Q4_0")]
OWN_ROWS = [[0], [3, 1, 0], [], list(range(9))]


@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize("activation", [SWIGLU, CLAMPED])
@pytest.mark.parametrize("types", [*GGML_PAIRS, ("int4", "int8"), ("int8", "int4:f16"), ("int4:f32", "Q4_K")])
def test_an_expert_is_two_products_swiglu_and_a_third(machines, how, types, activation):
    """Near the same in float64 with inputs of 8 bits; that is near the same with the inputs as they are."""
    middle = 256 if types[1].endswith("K") else 320  # a unit, and more
    slabs = [slab(types, 512, middle, seed, biased=activation.limit > 0) for seed in range(len(OWN_ROWS))]
    x = some(9, 512)
    out = run(machines[how], x, slabs, OWN_ROWS, activation)
    expected = [reference(x[own], one, activation, in_8_bits) for own, one in zip(OWN_ROWS, slabs, strict=True)]
    exact = [
        reference(x[own].double(), one, activation, torch.Tensor.double)
        for own, one in zip(OWN_ROWS, slabs, strict=True)
    ]
    assert relative_error(out, torch.cat(expected)) <= 0.004  # a rounding to bf16, and codes that differ by one
    assert relative_error(out, torch.cat(exact)) <= 0.02


@pytest.mark.parametrize("type_name", INTEGER_FORMATS)
def test_the_bits_of_a_row_depend_on_nothing_that_shares_the_call(machines, threads, type_name):
    kernels, x = machines[RUNS[-1]], some(140, 256)
    slabs = [slab((type_name, type_name), 256, 256, seed) for seed in range(3)]
    rows = [list(range(140)), [5], [7, 3, 139]]
    together = run(kernels, x, slabs, rows)
    assert torch.equal(bits(together), bits(run(kernels, x, slabs, rows, together=False)))
    assert torch.equal(bits(together[141:]), bits(run(kernels, x, slabs[2:], rows[2:])))
    assert torch.equal(bits(together[3]), bits(run(kernels, x[3:4], slabs[:1], [[0]])[0]))
    threads(3)
    assert torch.equal(bits(together), bits(run(kernels, x, slabs, rows)))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("types", [("Q4_K", "Q6_K"), ("int4", "int8"), ("int4:f32", "int4"), ("int8", "int4")])
def test_gate_and_up_may_be_two_matrices(machines, types):
    kernels, x = machines[RUNS[-1]], some(3, 512)
    products = [
        run(kernels, x, [slab(types, 512, 256, 0, split=split, biased=True)], [[0, 1, 2]], CLAMPED)
        for split in (False, True)
    ]
    assert torch.equal(*map(bits, products))


@pytest.mark.parametrize("activation", [SWIGLU, CLAMPED])
@pytest.mark.parametrize("types", [("MXFP4", "MXFP4"), ("int4", "int8")])
def test_every_level_gives_the_same_bits(machines, activation, types):
    slabs = [slab(types, 320, 192, seed, biased=True) for seed in range(2)]
    for scale in (1.0, 1e-3, 1e4, 1e15):
        first, *others = (run(machines[how], some(9, 320) * scale, slabs, [[0, 8], [2]], activation) for how in RUNS)
        assert all(torch.equal(bits(first), bits(other)) for other in others), scale


@pytest.mark.parametrize("how", RUNS)
def test_results_are_added_in_the_order_of_the_choice(machines, how):
    x = some(5, 128)
    out, places = some(15, 128), torch.randperm(15, generator=torch.Generator().manual_seed(0)).view(5, 3)
    weights = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    dtype = ROWS[machines[how].experts_level][1]
    products = LayerProducts(machines[how], x.to(dtype), torch.arange(15) % 5, SWIGLU)
    combined = products.combine(out.to(dtype), places, weights)
    expected = (out[places].double() * weights[..., None]).sum(1)
    assert ((combined - expected).abs() <= 2**-8 * expected.abs() + 1e-7).all()


def test_what_is_not_finite_stays_visible(machines):
    x = some(3, 256)
    x[1, 9] = float("nan")
    out = run(machines[RUNS[-1]], x, [slab(("Q4_K", "Q6_K"), 256, 256, 0)], [[0, 1, 2]])
    assert out.isfinite().all(1).tolist() == [True, False, True]
    assert out[1].isnan().all()


def test_what_the_kernel_cannot_read_has_no_addresses():
    whole = slab(("Q4_K", "Q4_K"), 256, 256, 0, biased=True)
    assert isinstance(whole.addresses, ExpertAddresses)
    down, both = whole.down, whole.gate_up[0]
    bad = [
        {"down": int4_matrix(256, 256, 16, torch.float16)},
        {"down": down.rows(slice(0, 200))},
        {"down": down._replace(blocks=down.blocks[:, :-1])},
        {"down": ggml_matrix("Q2_K", 256, 256)},
        {"down": down._replace(blocks=torch.cat([down.blocks] * 2, 1)[:, : down.blocks.shape[1]])},
        {"gate_up": (both.rows(slice(0, 256)), ggml_matrix("Q6_K", 256, 256))},
        {"gate_up": (both.rows(slice(0, 256)), both.rows(slice(0, 255)))},
        {"gate_up": (both.rows(slice(0, 256)), ggml_matrix("Q4_K", 256, 512))},
        {"gate_up_bias": torch.zeros(256)},
        {"down_bias": torch.zeros(256).bfloat16()},
    ]
    for change in bad:
        assert dataclasses.replace(whole, **change).addresses is None, change


def test_rows_of_another_type_are_refused(machines):
    for how, dtype in (("avx2", torch.bfloat16), ("emulated", torch.float32)):
        with pytest.raises(ValueError, match="no kernels for experts on rows of"):
            LayerProducts(machines[how], some(3, 256).to(dtype), torch.arange(3), SWIGLU)


def test_experts_of_a_call_are_stored_alike(machines):
    x = some(3, 256)
    slabs = [slab(types, 256, 256, 0) for types in (("Q4_K", "Q4_K"), ("Q4_K", "Q6_K"))]
    for chosen, rows in ((slabs, [[0], [1]]), ([slab(("Q8_0", "Q8_0"), 320, 256, 0)], [[0]])):
        with pytest.raises(ValueError, match="stored alike"):
            run(machines["emulated"], x, chosen, rows)
