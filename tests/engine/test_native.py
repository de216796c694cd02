"""The compiled products: right for every format and shape, and never used when they are not."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from rotary_batch.commands.opening import EMBEDDED
from rotary_batch.config import c_compiler
from rotary_batch.engine import compiling, matmul, native
from rotary_batch.engine.attention import Rows
from rotary_batch.engine.attention_fast import FastAttention
from rotary_batch.engine.attention_native import NativeAttention
from rotary_batch.engine.kv import KvArena
from rotary_batch.engine.matmul import FastMatmul
from rotary_batch.engine.native import Native
from rotary_batch.engine.native_bf16 import FEW_ROWS
from rotary_batch.engine.quant import decode, encode, matrix_from, num_columns
from rotary_batch.model.manifest import Manifest

CAPABILITY = torch.backends.cpu.get_cpu_capability()
pytestmark = pytest.mark.skipif(
    c_compiler(os.environ) is None or not CAPABILITY.startswith("AVX"), reason="needs a C compiler and AVX2"
)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> Native:
    return Native(compiling.library(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def fresh(monkeypatch):
    """A process that has loaded nothing yet, on a processor with AVX2."""
    monkeypatch.setattr(native, "is_wanted", lambda: True)
    native.load.cache_clear()
    yield
    native.load.cache_clear()


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
    found = kernels.linear(x, matrix)
    assert (found.shape, found.dtype) == ((rows, out), torch.float32)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("rows", [17, 33, 200])
@pytest.mark.parametrize(("out", "inner"), [(64, 128), (100, 96), (4160, 2048)])
def test_unpacking_int4_for_bf16_rows_is_the_reference_bit_by_bit(kernels, monkeypatch, out, inner, rows):
    """Whole matrices, parts of them, and through the product in several tiles."""
    matrix = stored(out, inner, "int4")
    expected = decode(matrix, torch.empty(out, inner)).bfloat16()
    blocks = len(matrix.nibbles)
    for first in range(0, blocks, 7):
        found = kernels.unpack_int4(matrix, first, torch.zeros((blocks - first) * 64, inner, dtype=torch.bfloat16))
        assert torch.equal(found[: out - first * 64], expected[first * 64 :])
    with pytest.raises(AssertionError, match="past the end"):
        kernels.unpack_int4(matrix, 1, torch.zeros(blocks * 64, inner, dtype=torch.bfloat16))
    monkeypatch.setattr(native, "load", lambda: kernels)
    monkeypatch.setattr(matmul, "BF16_TILE_NBYTES", 2**20)
    x = torch.randn(rows, inner, generator=torch.Generator().manual_seed(rows)).bfloat16()
    product, wanted = FastMatmul(torch.device("cpu")).linear(x, matrix), x.double() @ expected.double().T
    assert (product.shape, product.dtype) == ((rows, out), torch.bfloat16)
    assert (product - wanted).norm() <= 0.004 * wanted.norm()


# In registers, around a tile of rows, two of them, and MANY; parts of a panel's columns, all of them, and more.
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 15, 16, 17, 32, 33, 48, 255, 256, 257, 530])
@pytest.mark.parametrize(("out", "inner"), [(4, 32), (64, 32), (128, 96), (192, 512), (448, 1280), (64, 2336)])
@pytest.mark.parametrize("stored_as", ["bf16", "int8", "int4"])
def test_products_of_bf16_rows_are_those_of_the_reference(kernels, stored_as, out, inner, rows):
    matrix, products = stored(out, inner, stored_as), kernels.bf16_products
    if not products.takes(matrix, rows):
        pytest.skip("goes another way on this processor")
    x = torch.randn(rows, inner, generator=torch.Generator().manual_seed(rows)).add(0.5).bfloat16()
    expected = x.double() @ decode(matrix, torch.empty(out, inner)).double().T
    found = products.linear(x, matrix)
    assert (found.shape, found.dtype) == ((rows, out), torch.bfloat16)
    assert (found - expected).abs().max() <= 2**-8 * expected.abs().max(), "one rounding to bf16"
    if rows > FEW_ROWS:
        assert torch.equal(found[:5], products.linear(x[:5], matrix)), "whatever shares the product"


def test_what_the_products_of_bf16_rows_cannot_take_goes_another_way(kernels, monkeypatch):
    """Rows of a matrix that are no panel, columns that fill no register, a matrix in pieces, float32."""
    products = kernels.bf16_products
    for has in (True, False):
        monkeypatch.setattr(products, "has_registers", has)
        monkeypatch.setattr(products, "has_tiles", has)
        for rows in (1, 2, 5):
            assert products.takes(stored(128, 96, "bf16"), rows) is has
            assert products.takes(stored(128, 96, "int8"), rows) is has
            assert products.takes(stored(100, 96, "int4"), rows) is (has and rows > 1), "it is stored in whole panels"
            assert products.takes(stored(100, 96, "bf16"), rows) is (has and rows <= FEW_ROWS)
            assert not products.takes(stored(102, 96, "bf16"), rows)
            assert not products.takes(stored(64, 40, "bf16"), rows)
            assert not products.takes(stored(128, 192, "bf16")[:, :96], rows)
            assert not products.takes(stored(128, 96, "bf16").float(), rows)
    with pytest.raises(AssertionError, match="past the end"):
        products.linear(torch.zeros(2, 64, dtype=torch.bfloat16), stored(128, 96, "bf16"))


@pytest.mark.parametrize("stored_as", ["bf16", "int8", "int4"])
def test_threads_share_the_work_and_change_no_bit(kernels, stored_as, threads):
    matrix, outputs = stored(448, 1288 if stored_as != "int4" else 1280, stored_as), []
    for rows in (0, 5, 100):
        x = torch.randn(rows, num_columns(matrix), generator=torch.Generator().manual_seed(rows))
        for count in (1, 3):
            threads(count)
            outputs.append(kernels.linear(x, matrix))
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
    assert torch.equal(kernels.linear(wide[:, :128], matrix), kernels.linear(wide[:, :128].contiguous(), matrix))


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
    assert not Native.takes(stored(64, 96, "bf16").T, 3)
    assert not Native.takes(stored(128, 96, "bf16")[:, :64], 3)


def test_rows_of_another_width_are_refused(kernels):
    with pytest.raises(AssertionError, match="past the end"):
        kernels.linear(torch.zeros(3, 64), stored(64, 96, "bf16"))


def test_odd_shapes_are_left_to_torch():
    takes = [Native.takes(stored(out, inner, "bf16"), 3) for out, inner in ((64, 96), (62, 96), (64, 92))]
    assert takes == [True, False, False]
    assert not Native.takes(torch.zeros(64, 96), 3), "float32 matrices have a product of their own"


def test_without_a_compiler_torch_does_the_work(fresh, monkeypatch):
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert native.load() is None
    matrix, x = stored(64, 128, "int4"), torch.randn(3, 128)
    expected = x @ decode(matrix, torch.empty(64, 128)).T
    found = FastMatmul(torch.device("cpu")).linear(x, matrix)
    assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


def test_a_cache_folder_that_cannot_be_written_costs_a_compilation(fresh, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert native.load() is not None


@pytest.mark.parametrize("damage", ["empty", "of everybody"])
def test_a_library_that_is_damaged_or_that_others_may_write_is_built_anew(fresh, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.load() is not None
    (library,) = tmp_path.rglob("native-*.so")
    whole = library.read_bytes()
    library.unlink()  # not written in place: this process has it mapped
    library.write_bytes(b"" if damage == "empty" else b"not a library")
    library.chmod(0o600 if damage == "empty" else 0o666)
    native.load.cache_clear()
    assert native.load() is not None
    assert library.read_bytes() == whole
    assert [path.name for path in library.parent.iterdir()] == [library.name]


def test_a_compiler_may_come_with_arguments(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "env LC_ALL=C cc")
    assert native.load() is not None


def test_a_compiler_that_knows_no_bf16_builds_the_rest(fresh, tmp_path, monkeypatch):
    """As an old one does, or one with an old assembler; what is not there is never called."""
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *-DNO_BF16*) exec cc "$@" ;; esac\necho "no such mnemonic" >&2\nexit 1\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    found = native.load()
    assert found is not None
    products = found.bf16_products
    assert (products.has_registers, products.has_tiles) == (False, False)
    assert not any(products.takes(stored(128, 96, kind), rows) for kind in ("bf16", "int8", "int4") for rows in (1, 9))
    x, matrix = torch.randn(5, 96), stored(128, 96, "int4")
    assert torch.allclose(found.linear(x, matrix), x @ decode(matrix, torch.empty(128, 96)).T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (("_mm256_set1_ps(8)", "_mm256_set1_ps(7)"), "int4"),
        (("mine[d] * scale", "mine[d]"), "attention"),
        (("(r[n], r[n + 4], 0x31)", "(r[n], r[n + 4], 0x20)"), "bf16"),
        (("p < span.prefix_tokens", "0"), "attention"),
        (("SURPLUS 136.0f", "SURPLUS 135.0f"), "bf16 rows"),
        (("_mm512_reduce_add_ps(sums[n][m])", "_mm512_reduce_add_ps(sums[n][0])"), "bf16 rows"),
    ],
)
def test_kernels_that_compute_wrongly_are_not_used(fresh, kernels, tmp_path, monkeypatch, wrong, what):
    if what == "bf16 rows" and not kernels.bf16_products.has_tiles:
        pytest.skip("needs a processor with tiles")
    events = []
    monkeypatch.setattr(native, "event", lambda name, **fields: events.append((name, fields)))
    for source in compiling.SOURCES:
        text = source.read_text()
        (tmp_path / source.name).write_text(text.replace(*wrong))
    monkeypatch.setattr(compiling, "SOURCES", tuple(tmp_path / source.name for source in compiling.SOURCES))
    assert native.load() is None
    assert events == [("kernels compute wrongly", {"what": what})]


def test_it_is_compiled_once(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.load() is not None
    native.load.cache_clear()
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert native.load() is not None, "the library of the first time is used"
