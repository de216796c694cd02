"""The compiled products: right for every format and shape, and never used when they are not."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from rotary_batch.commands.opening import EMBEDDED
from rotary_batch.config import c_compiler
from rotary_batch.engine import matmul
from rotary_batch.engine.attention import Rows
from rotary_batch.engine.attention_fast import FastAttention
from rotary_batch.engine.attention_native import NativeAttention
from rotary_batch.engine.kernels import build, dispatch
from rotary_batch.engine.kernels.dispatch import Dispatch, Level, choose
from rotary_batch.engine.kv import KvArena
from rotary_batch.engine.matmul import FastMatmul
from rotary_batch.engine.quant import decode, encode, matrix_from, num_columns
from rotary_batch.model.manifest import Manifest

CAPABILITY = torch.backends.cpu.get_cpu_capability()
pytestmark = pytest.mark.skipif(
    c_compiler(os.environ) is None or not CAPABILITY.startswith("AVX"), reason="needs a C compiler and AVX2"
)


@pytest.fixture(scope="module")
def compiled() -> Dispatch:
    found = dispatch.load.__wrapped__()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def kernels(compiled):
    return compiled.kernels


@pytest.fixture
def fresh(monkeypatch):
    """A process that has loaded nothing yet, on a processor with AVX2."""
    monkeypatch.setattr(dispatch, "is_wanted", lambda: True)
    dispatch.load.cache_clear()
    yield
    dispatch.load.cache_clear()


def stored(out: int, inner: int, stored_as: str):
    weight = torch.randn(out, inner, generator=torch.Generator().manual_seed(out)).bfloat16()
    return matrix_from(encode(weight, stored_as), out)


# Below, at and above a group of rows in registers, FEW, MANY and two of MANY; blocks of 64 that are whole or not.
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 8, 47, 48, 49, 50, 192, 193, 385])
@pytest.mark.parametrize(("out", "inner"), [(64, 128), (100, 96), (4, 8), (448, 1288), (200, 2336)])
@pytest.mark.parametrize("stored_as", ["bf16", "int8", "int4"])
def test_products_are_those_of_the_reference(kernels, stored_as, out, inner, rows):
    if stored_as == "int4" and inner % 32:
        pytest.skip("int4 has groups of 32 columns at least")
    matrix = stored(out, inner, stored_as)
    x = torch.randn(rows, inner, generator=torch.Generator().manual_seed(rows))
    expected = x.double() @ decode(matrix, torch.empty(out, inner)).double().T
    found = kernels.gemm_avx2(x, matrix)
    assert (found.shape, found.dtype) == ((rows, out), torch.float32)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("rows", [17, 33, 200])
@pytest.mark.parametrize(("out", "inner"), [(64, 128), (100, 96), (4160, 2048)])
def test_unpacking_int4_for_bf16_rows_is_the_reference_bit_by_bit(compiled, kernels, monkeypatch, out, inner, rows):
    """Whole matrices, parts of them, and through the product in several tiles."""
    matrix = stored(out, inner, "int4")
    expected = decode(matrix, torch.empty(out, inner)).bfloat16()
    blocks = len(matrix.nibbles)
    for first in range(0, blocks, 7):
        found = kernels.dequant_int4(matrix, first, torch.zeros((blocks - first) * 64, inner, dtype=torch.bfloat16))
        assert torch.equal(found[: out - first * 64], expected[first * 64 :])
    with pytest.raises(ValueError, match="does not go with rows"):
        kernels.dequant_int4(matrix, 1, torch.zeros(blocks * 64, inner, dtype=torch.bfloat16))
    monkeypatch.setattr(dispatch, "load", lambda: compiled)
    monkeypatch.setattr(matmul, "BF16_TILE_NBYTES", 2**20)
    x = torch.randn(rows, inner, generator=torch.Generator().manual_seed(rows)).bfloat16()
    product, wanted = FastMatmul(torch.device("cpu")).linear(x, matrix), x.double() @ expected.double().T
    assert (product.shape, product.dtype) == ((rows, out), torch.bfloat16)
    assert (product - wanted).norm() <= 0.004 * wanted.norm()


# In registers, around a tile of rows, two of them, and MANY; parts of a panel's columns, all of them, and more.
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 15, 16, 17, 32, 33, 48, 255, 256, 257, 530])
@pytest.mark.parametrize(("out", "inner"), [(4, 32), (64, 32), (128, 96), (192, 512), (448, 1280), (64, 2336)])
@pytest.mark.parametrize("stored_as", ["bf16", "int8", "int4"])
def test_products_of_bf16_rows_are_those_of_the_reference(compiled, stored_as, out, inner, rows):
    matrix = stored(out, inner, stored_as)
    x = torch.randn(rows, inner, generator=torch.Generator().manual_seed(rows)).add(0.5).bfloat16()
    if (product := compiled.product(x, matrix)) is None:
        pytest.skip("goes another way on this processor")
    expected = x.double() @ decode(matrix, torch.empty(out, inner)).double().T
    found = product(x, matrix)
    assert (found.shape, found.dtype) == ((rows, out), torch.bfloat16)
    assert (found - expected).abs().max() <= 2**-8 * expected.abs().max(), "one rounding to bf16"
    if rows > 4:
        assert torch.equal(found[:5], product(x[:5], matrix)), "whatever shares the product"


@pytest.mark.parametrize("level", Level)
def test_the_choice_of_products_of_bf16_rows(level):
    """Rows of a matrix that are no panel, columns that fill no register, a matrix in pieces, float32."""
    bf16, few = torch.bfloat16, level >= Level.AVX512_BF16
    for rows in (1, 2, 5):
        small = few and rows <= 4
        assert bool(choose(level, bf16, stored(128, 96, "bf16"), rows)) is few
        assert bool(choose(level, bf16, stored(128, 96, "int8"), rows)) is few
        assert bool(choose(level, bf16, stored(100, 96, "int4"), rows)) is few, "in whole panels"
        assert bool(choose(level, bf16, stored(100, 96, "bf16"), rows)) is small
        assert not choose(level, bf16, stored(102, 96, "bf16"), rows)
        assert not choose(level, bf16, stored(64, 40, "bf16"), rows)
        assert not choose(level, bf16, stored(128, 192, "bf16")[:, :96], rows)
        assert not choose(level, bf16, stored(128, 96, "bf16").float(), rows)


@pytest.mark.parametrize("stored_as", ["bf16", "int8", "int4"])
def test_threads_share_the_work_and_change_no_bit(kernels, stored_as, threads):
    matrix, outputs = stored(448, 1288 if stored_as != "int4" else 1280, stored_as), []
    for rows in (0, 5, 100):
        x = torch.randn(rows, num_columns(matrix), generator=torch.Generator().manual_seed(rows))
        for count in (1, 3):
            threads(count)
            outputs.append(kernels.gemm_avx2(x, matrix))
        assert outputs[-1].shape == (rows, 448)
        assert torch.equal(*outputs[-2:])


@pytest.fixture
def threads():
    """Sets how many threads there are, until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_rows_that_are_not_next_to_each_other(kernels):
    matrix, wide = stored(64, 128, "bf16"), torch.randn(5, 256)
    assert torch.equal(kernels.gemm_avx2(wide[:, :128], matrix), kernels.gemm_avx2(wide[:, :128].contiguous(), matrix))


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("window", [None, 9, 64])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"), [(8, 2, 64), (4, 4, 32), (16, 2, 128), (12, 2, 96), (2, 1, 256), (24, 2, 32)]
)
def test_attention_is_the_torch_way(kernels, mixed_rows, heads, kv_heads, dim, window, dtype, apart):
    """Decode rows, drafts and a prompt; with a shared prefix and without; contexts of one key to several tiles."""
    geometry = dataclasses.replace(
        Manifest.load(EMBEDDED).geometry, num_layers=2, num_heads=heads, num_kv_heads=kv_heads, head_dim=dim,
        sliding_window=window,
    )  # fmt: skip
    rows = [
        *mixed_rows,
        Rows(19, 8, 100, 350, 10, 70),
        *[Rows(27 + n, 1, 64 + n, 400 + 20 * n, 10, 60) for n in range(5)],
    ]
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    kv = KvArena(geometry, 520, "bf16", torch.bfloat16, cpu)
    noise = [torch.randn(520, kv_heads, dim, generator=generator) for _ in range(2)]
    kv.write(1, torch.arange(520), *noise)
    queries = torch.randn(32, heads, dim, generator=generator).to(dtype)
    found = []
    for attention in (FastAttention(geometry, dtype, cpu), NativeAttention(geometry, dtype, cpu, kernels)):
        attention.plan(rows)
        found.append(attention.attend(1, queries, kv))
    assert [one.dtype for one in found] == [dtype, dtype]
    assert (found[0] - found[1]).abs().max() <= apart


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


def test_a_matrix_that_lies_another_way_is_left_to_torch():
    assert not choose(Level.AMX, torch.float32, stored(64, 96, "bf16").T, 3)
    assert not choose(Level.AMX, torch.float32, stored(128, 96, "bf16")[:, :64], 3)


def test_rows_of_another_width_are_refused(kernels):
    with pytest.raises(ValueError, match="does not go with rows"):
        kernels.gemm_avx2(torch.zeros(3, 64), stored(64, 96, "bf16"))


def test_odd_shapes_are_left_to_torch():
    sizes = ((64, 96), (62, 96), (64, 92))
    chosen = [choose(Level.AVX2, torch.float32, stored(out, inner, "bf16"), 3) for out, inner in sizes]
    assert chosen == ["gemm_avx2", None, None]
    assert not choose(Level.AVX2, torch.float32, torch.zeros(64, 96), 3), "float32 matrices have a product of their own"


def test_without_a_compiler_torch_does_the_work(fresh, monkeypatch):
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert dispatch.load() is None
    matrix, x = stored(64, 128, "int4"), torch.randn(3, 128)
    expected = x @ decode(matrix, torch.empty(64, 128)).T
    found = FastMatmul(torch.device("cpu")).linear(x, matrix)
    assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


def test_a_cache_folder_that_cannot_be_written_costs_a_compilation(fresh, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert dispatch.load() is not None


@pytest.mark.parametrize("damage", ["empty", "of everybody"])
def test_a_library_that_is_damaged_or_that_others_may_write_is_built_anew(fresh, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert dispatch.load() is not None
    (library,) = tmp_path.rglob("kernels-*.so")
    whole = library.read_bytes()
    library.unlink()  # not written in place: this process has it mapped
    library.write_bytes(b"" if damage == "empty" else b"not a library")
    library.chmod(0o600 if damage == "empty" else 0o666)
    dispatch.load.cache_clear()
    assert dispatch.load() is not None
    assert library.read_bytes() == whole
    assert sorted(path.suffix for path in library.parent.iterdir()) == [".json", ".so"]


def test_a_compiler_may_come_with_arguments(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "env LC_ALL=C cc")
    assert dispatch.load() is not None


def test_a_compiler_that_knows_no_bf16_builds_the_rest(fresh, tmp_path, monkeypatch):
    """As an old one does, or one with an old assembler; what is not there is never called."""
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *-mavx512bf16*) echo "no such mnemonic" >&2; exit 1 ;; esac\nexec cc "$@"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    found = dispatch.load()
    assert found is not None
    assert found.level == Level.AVX2
    x, matrix = torch.randn(5, 96), stored(128, 96, "int4")
    assert torch.allclose(
        found.kernels.gemm_avx2(x, matrix), x @ decode(matrix, torch.empty(128, 96)).T, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (("_mm256_set1_ps(8)", "_mm256_set1_ps(7)"), "int4, torch.float32"),
        (("mine[d] * scale", "mine[d]"), "attention"),
        (("(r[n], r[n + 4], 0x31)", "(r[n], r[n + 4], 0x20)"), "bf16, torch.float32"),
        (("p < span.prefix_tokens", "0"), "attention"),
        (("SURPLUS 136.0f", "SURPLUS 135.0f"), "int4, torch.bfloat16"),
        (("_mm512_reduce_add_ps(sums[n][m])", "_mm512_reduce_add_ps(sums[n][0])"), "bf16, torch.bfloat16"),
    ],
)
def test_kernels_that_compute_wrongly_are_not_used(fresh, compiled, tmp_path, monkeypatch, wrong, what):
    if "SURPLUS" in wrong[0] and compiled.level < Level.AMX:
        pytest.skip("needs a processor with tiles")
    events = []
    monkeypatch.setattr(dispatch, "event", lambda name, **fields: events.append((name, fields)))
    for source in build.FOLDER.iterdir():
        (tmp_path / source.name).write_text(source.read_text().replace(*wrong))
    monkeypatch.setattr(dispatch, "built", lambda folder, units: build.built(folder, units, tmp_path))
    assert dispatch.load() is None
    assert events == [("kernels compute wrongly", {"what": what})]


def test_it_is_compiled_once(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert dispatch.load() is not None
    dispatch.load.cache_clear()
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert dispatch.load() is not None, "the library of the first time is used"
