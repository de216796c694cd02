"""Stored matrices: errors stay below half a step, and torch's kernels give the reference's product."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from rotary_batch.engine import open_engine
from rotary_batch.engine.kernels.build import Library
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.cuda import dequant_int4
from rotary_batch.engine.kernels.dispatch import Level
from rotary_batch.engine.kernels.linear import FastMatmul, int4pack_block_rows, int4pack_mm
from rotary_batch.engine.kernels.matrices import Int4Matrix, Int8Matrix
from rotary_batch.engine.kernels.quant import dequantise, matrix_from, quantise
from rotary_batch.engine.offload.slab import slab_views
from rotary_batch.engine.offload.tiers import DiskTier
from rotary_batch.engine.packs.pack import pack, verify
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import DENSE_NAME, EXPERTS_NAME, Manifest
from rotary_batch.model.slabs import group_columns, uniform_layout
from rotary_batch.testing import write_tiny_checkpoint

CPU = torch.device("cpu")


def random(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()


def stored(weight: torch.Tensor, stored_as: str):
    return matrix_from(quantise(weight, stored_as), weight.shape[0], stored_as)


def decoded(matrix, rows: int, columns: int) -> torch.Tensor:
    return dequantise(matrix, torch.empty(rows, columns))


def torch_alone(dtype: torch.dtype) -> FastMatmul:
    """Products without compiled kernels."""
    portable = CpuKernels(Library(None, frozenset([Level.PORTABLE]), {}), has_bf16=dtype == torch.bfloat16)
    return FastMatmul(CPU, portable)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.sampled_from([32, 64, 96, 128, 224, 256]), st.integers(0, 99))
def test_int8_is_off_by_at_most_half_a_step(rows, columns, seed):
    weight = random(rows, columns, seed)
    error = (decoded(stored(weight, "int8"), rows, columns) - weight.float()).abs()
    assert (error <= weight.float().abs().amax(1, keepdim=True) / 254 * 1.0001).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.sampled_from([32, 64, 96, 128, 224, 256]), st.integers(0, 99))
def test_int4_is_off_by_at_most_half_a_step_and_the_rounding_of_its_scale(rows, columns, seed):
    weight = random(rows, columns, seed)
    dequantised = decoded(stored(weight, "int4"), rows, columns).view(rows, -1, group_columns(columns))
    grouped = weight.float().view(dequantised.shape)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    # scale and zero are bf16 (8 bits): together they move an end of the range by at most 2^-8 of the largest number, twice
    slack = 2 * 2**-8 * grouped.abs().amax(-1, keepdim=True)
    assert ((dequantised - grouped).abs() <= (high - low) / 30 * 1.01 + slack).all()


def test_int4_bytes_have_the_specified_layout():
    """Byte [block, column, j]: low nibble = row j, high nibble = row j + 32; weight = (nibble - 8) * scale + zero."""
    weight = random(100, 64)
    parts = quantise(weight, "int4")
    assert parts[""].shape == (2, 64, 32)
    assert parts[".scale_zero"].shape == (1, 128, 2)
    for row, column in ((0, 0), (31, 5), (32, 5), (63, 63), (64, 1), (99, 40)):
        block, j = divmod(row, 64)
        byte = int(parts[""][block, column, j % 32])
        nibble = byte & 15 if j < 32 else byte >> 4
        scale, zero = parts[".scale_zero"][0, row].float().tolist()
        assert decoded(stored(weight, "int4"), 100, 64)[row, column] == (nibble - 8) * scale + zero


def test_a_constant_matrix_and_one_of_zeros_survive():
    for value in (0.0, 1.0, -3.0):
        weight = torch.full((3, 32), value).bfloat16()
        for stored_as in ("int8", "int4"):
            assert torch.allclose(decoded(stored(weight, stored_as), 3, 32), weight.float(), atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 16, 31, 32, 33, 64, 200])
@pytest.mark.parametrize(("out", "inner"), [(64, 128), (100, 96), (48, 32), (448, 256), (2200, 128)])
@pytest.mark.parametrize("stored_as", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_torch_gives_the_product_of_the_reference(stored_as, out, inner, rows, dtype):
    """In the processor's own dtype, and in the other one: what runs on other processors is tested here too."""
    matrix, x = stored(random(out, inner), stored_as), random(rows, inner, 1).to(dtype)
    expected = x.float() @ decoded(matrix, out, inner).T
    product = torch_alone(dtype).linear(x, matrix)
    assert (product.shape, product.dtype) == ((rows, out), dtype)
    assert (product.float() - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("rows", [1, 2, 8, 9])
@pytest.mark.parametrize("inner", [36, 100, 200])
def test_int8_rows_of_any_length(inner, rows):
    """Torch's operator wants 16 numbers at a time: with others it gave wrong sums for one row and crashed with more."""
    matrix, x = stored(random(60, inner), "int8"), random(rows, inner, 1).bfloat16()
    expected = x.float() @ decoded(matrix, 60, inner).T
    assert (torch_alone(torch.bfloat16).linear(x, matrix).float() - expected).abs().max() <= 0.02 * expected.abs().max()


def test_the_operator_reads_our_bytes_where_it_says_so():
    if not int4pack_block_rows():
        pytest.skip("this processor's operator reads neither layout; the bytes are unpacked instead")
    matrix, x = stored(random(192, 256), "int4"), random(5, 256, 1)
    assert isinstance(matrix, Int4Matrix)
    expected = x.float() @ decoded(matrix, 192, 256).T
    assert (int4pack_mm(x, matrix, int4pack_block_rows()).float() - expected).abs().max() <= 0.01 * expected.abs().max()


def test_unpacking_by_columns_is_the_reference():
    matrix = stored(random(128, 256), "int4")
    out = dequant_int4(matrix.nibbles, matrix.scale_zero, torch.empty(256, 128, dtype=torch.bfloat16))
    assert (out.float().T - decoded(matrix, 128, 256)).abs().max() <= 2**-7 * out.float().abs().max()


@pytest.fixture(scope="module")
def wide_checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(
        tmp_path_factory.mktemp("wide"), seed=3, hidden_size=64, intermediate_size=96, num_shards=2, dtype="float32"
    )


@pytest.mark.parametrize("experts", ["int8", "int4"])
@pytest.mark.parametrize("dense", ["bf16", "int8"])
def test_a_quantised_pack_holds_what_the_encoder_gives_and_leaves_routers_alone(
    wide_checkpoint, tmp_path, experts, dense
):
    manifest = pack(wide_checkpoint, tmp_path / "pack", experts=experts, dense=dense)
    assert (manifest.experts, manifest.dense, verify(tmp_path / "pack")) == (experts, dense, [])
    weights = {}
    for shard in wide_checkpoint.glob("*.safetensors"):
        with safe_open(str(shard), "pt") as file:
            weights |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stem = "model.layers.1.block_sparse_moe.experts.2."
    up = torch.cat([weights[stem + "w1.weight"], weights[stem + "w3.weight"]])
    with safe_open(str(tmp_path / "pack" / EXPERTS_NAME), "pt") as file:
        slab = slab_views(file.get_tensor("layers.1.experts.2"), manifest, 1)
    for matrix, weight in ((slab.gate_up[0], up), (slab.down, weights[stem + "w2.weight"])):
        for part, expected in zip(matrix[:2], stored(weight, experts)[:2], strict=True):
            assert torch.equal(part, expected)
    with safe_open(str(tmp_path / "pack" / DENSE_NAME), "pt") as file:
        assert torch.equal(file.get_tensor("layers.0.router"), weights["model.layers.0.block_sparse_moe.gate.weight"])
        assert file.get_tensor("layers.0.q").dtype == (torch.int8 if dense == "int8" else torch.float32)


@pytest.mark.parametrize("experts", ["int8", "int4"])
def test_exact_mode_is_the_reference_on_the_dequantised_weights(wide_checkpoint, tmp_path, experts, monkeypatch):
    """A pack of plain float32 weights, each replaced by its dequantised self, gives the same bits."""
    manifest = pack(wide_checkpoint, tmp_path / "quantised", experts=experts)
    plain = pack(wide_checkpoint, tmp_path / "plain")
    path = tmp_path / "plain" / EXPERTS_NAME
    with safe_open(str(tmp_path / "quantised" / EXPERTS_NAME), "pt") as file, path.open("r+b") as out:
        for key, place in plain.slabs.items():
            slab = slab_views(file.get_tensor(f"layers.{key.layer}.experts.{key.expert}"), manifest, key.layer)
            out.seek(place.offset)
            for matrix, shape in ((slab.gate_up[0], (192, 64)), (slab.down, (64, 96))):
                out.write(decoded(matrix, *shape).numpy().tobytes())
    logits = []
    for folder in ("quantised", "plain"):
        monkeypatch.setattr(DiskTier, "_check_digest", lambda *_: None)  # the bytes were replaced on purpose
        engine = open_engine(tmp_path / folder, numerics="exact")
        logits.append(engine.logits([5, 9, 200, 31, 7]))
        engine.close()
    assert torch.equal(*logits)


def test_rows_that_no_group_divides_are_refused_with_advice(tmp_path):
    source = write_tiny_checkpoint(tmp_path / "hf", hidden_size=40, num_attention_heads=2, num_key_value_heads=1)
    with pytest.raises(ModelError, match="rows of 40 numbers cannot be cut into groups of 32; use int8"):
        pack(source, tmp_path / "pack", experts="int4")
    assert not (tmp_path / "pack").exists()
    assert pack(source, tmp_path / "pack", experts="int8").experts == "int8"


def test_a_pack_of_another_quantisation_than_asked_for_is_refused(wide_checkpoint, tmp_path):
    pack(wide_checkpoint, tmp_path / "pack", experts="int8")
    with pytest.raises(ModelError, match="its experts are int8, not int4"):
        open_engine(tmp_path / "pack", experts="int4")
    with pytest.raises(ModelError, match="already holds a pack as int8"):
        pack(wide_checkpoint, tmp_path / "pack", experts="int4")
    with pytest.raises(ModelError, match="int5"):
        pack(wide_checkpoint, tmp_path / "other", experts="int5")


def test_a_damaged_slab_is_found_at_its_first_use_and_named(wide_checkpoint, tmp_path):
    pack(wide_checkpoint, tmp_path / "pack", experts="int4")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "pack", copy)
    with (copy / EXPERTS_NAME).open("r+b") as file:
        file.seek(Manifest.load(copy).slabs[1, 3].offset + 7)
        file.write(b"\x5a\xa5")
    engine = open_engine(copy, ring_slots=2, resident_share=0.0)
    with pytest.raises(ModelError, match="layer 1 expert 3 is damaged"):
        engine.logits(list(range(60)))
    engine.close()


def test_layouts_start_every_part_on_a_cache_line_and_end_on_a_page():
    geometry = Manifest.load(open_embedded()).geometry
    sizes = {}
    for experts in ("bf16", "int8", "int4"):
        layout = uniform_layout(geometry, experts)
        assert all(part.offset % 64 == 0 for part in layout.parts.values())
        assert layout.nbytes % 4096 == 0
        ends = [part.offset + part.nbytes for part in layout.parts.values()]
        assert ends == sorted(ends)
        assert layout.nbytes - ends[-1] < 4096
        sizes[experts] = layout.nbytes
    assert sizes["bf16"] > 1.9 * sizes["int8"] > 3.3 * sizes["int4"]


def open_embedded():
    from rotary_batch.commands.default_model import EMBEDDED

    return EMBEDDED


def test_int8_dense_matrices_look_up_and_multiply_alike():
    weight = random(40, 64)
    matrix = stored(weight, "int8")
    assert isinstance(matrix, Int8Matrix)
    from rotary_batch.engine.kernels.numerics import Numerics

    token_ids = torch.tensor([3, 3, 39])
    rows = Numerics("exact", CPU).embed(matrix, token_ids)
    assert torch.equal(rows, decoded(matrix, 40, 64)[token_ids])
