"""The compiled products: right for every format and shape, and never used when they are not."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch

from rotary_batch.engine import native
from rotary_batch.engine.matmul import FastMatmul
from rotary_batch.engine.native import Native
from rotary_batch.engine.quant import decode, encode, matrix_from

CAPABILITY = torch.backends.cpu.get_cpu_capability()
pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or not CAPABILITY.startswith("AVX"), reason="needs a C compiler and AVX2"
)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> Native:
    return Native(ctypes.CDLL(str(native._library(tmp_path_factory.mktemp("cache")))))


@pytest.fixture
def fresh(monkeypatch):
    """A process that has loaded nothing yet, on a processor with AVX2."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
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


def test_rows_that_are_not_next_to_each_other(kernels):
    matrix, wide = stored(64, 128, "bf16"), torch.randn(5, 256)
    assert torch.equal(kernels.linear(wide[:, :128], matrix), kernels.linear(wide[:, :128].contiguous(), matrix))


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


def test_a_cache_folder_that_cannot_be_written_is_no_error(fresh, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert native.load() is None


def test_kernels_that_multiply_wrongly_are_not_used(fresh, tmp_path, monkeypatch, caplog):
    source = tmp_path / "native.c"
    right = native.SOURCE.read_text()
    source.write_text(right.replace("_mm256_set1_ps(8)", "_mm256_set1_ps(7)"))
    assert source.read_text() != right
    monkeypatch.setattr(native, "SOURCE", source)
    assert native.load() is None
    assert "wrong for int4" in caplog.text


def test_it_is_compiled_once(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.load() is not None
    native.load.cache_clear()
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert native.load() is not None, "the library of the first time is used"
