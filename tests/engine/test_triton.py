"""Triton kernels against their torch references: on CUDA, and without it through Triton's interpreter."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from matrices import ggml_matrix, int4_matrix

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.kernels.cuda import (
    HAS_TRITON,
    TRITON_TYPES,
    dequant_int4,
    int4_gemm_on_cuda,
    launch_dequant_ggml,
    supports_int4_gemm,
    triton_kernels,
)
from rotary_batch.engine.kernels.matrices import GgmlMatrix
from rotary_batch.engine.kernels.quant import dequantise, matrix_from, quantise
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.manifest import Manifest

INTERPRETED = not torch.cuda.is_available()
pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="needs Triton, which the dev extra installs on Linux x86-64"),
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16  # the interpreter cannot multiply bf16


@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (192, 224), (256, 4096)])
def test_dequantised_int4_is_the_reference_bit_by_bit(rows, columns):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).bfloat16()
    matrix = matrix_from(quantise(weight, "int4"), rows, "int4")
    expected = dequant_int4(matrix.nibbles, matrix.scale_zero, torch.empty(columns, rows, dtype=DTYPE))
    out = torch.zeros(columns, rows, dtype=DTYPE, device=DEVICE)
    nibbles, scale_zero = matrix.nibbles.to(DEVICE), matrix.scale_zero.to(DEVICE)
    group = columns // scale_zero.shape[0]
    triton_kernels().dequant_int4_kernel[(len(nibbles), -(-columns // 64))](
        nibbles, scale_zero, out, columns=columns, rows=rows, group=group, group_stride=scale_zero.stride(0), TILE=64
    )
    assert torch.equal(out.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_int4_with_scales_of_other_types_and_groups(group, dtype):
    """As model files have it: dequantised to the bit, and multiplied where a tile of columns shares a scale."""
    matrix = int4_matrix(192, 384, group, dtype)
    expected = dequant_int4(matrix.nibbles, matrix.scale_zero, torch.empty(384, 192, dtype=DTYPE))
    nibbles, scale_zero = matrix.nibbles.to(DEVICE), matrix.scale_zero.to(DEVICE)
    out = torch.zeros(384, 192, dtype=DTYPE, device=DEVICE)
    triton_kernels().dequant_int4_kernel[(len(nibbles), 6)](
        nibbles, scale_zero, out, columns=384, rows=192, group=group, group_stride=scale_zero.stride(0), TILE=64
    )
    assert (out.cpu() - expected).abs().max() <= 2**-7 * expected.abs().max() * (not INTERPRETED)
    if supports_int4_gemm(5, group):
        x = torch.randn(5, 384, generator=torch.Generator().manual_seed(0)).to(DTYPE)
        product, whole = int4_gemm_on_cuda(x.to(DEVICE), nibbles, scale_zero), x.double() @ expected.double()
        assert (product.double().cpu() - whole).norm() <= 0.004 * whole.norm()


@pytest.mark.parametrize("type_name", TRITON_TYPES)
def test_dequantised_blocks_of_gguf_files_are_the_reference(type_name):
    """To the bit in the interpreter; a device fuses a product and a sum.  The last program has blocks to spare."""
    matrix = ggml_matrix(type_name, 9, 512)
    expected = dequantise(matrix, torch.empty(9, 512))
    out = torch.zeros(9, 512, dtype=DTYPE, device=DEVICE)
    launch_dequant_ggml(GgmlMatrix(matrix.blocks.to(DEVICE), type_name), out)
    assert (out.cpu().float() - expected).abs().max() <= 2**-8 * expected.abs().max() * (not INTERPRETED)


def test_every_exponent_and_level_of_mxfp4():
    levels = torch.arange(16, dtype=torch.uint8).repeat(253, 1)
    blocks = torch.cat([torch.arange(253, dtype=torch.uint8)[:, None], levels | 15 - levels << 4], 1)
    out = torch.zeros(253, 32, device=DEVICE)
    launch_dequant_ggml(GgmlMatrix(blocks.to(DEVICE), "MXFP4"), out)
    assert torch.equal(out.cpu(), dequantise(GgmlMatrix(blocks, "MXFP4"), torch.empty(253, 32)))


@pytest.mark.parametrize("count", [1, 5, 16, 33, 128])
@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (192, 384), (576, 1280)])
def test_a_product_with_int4_weights_is_that_with_dequantised_weights(rows, columns, count):
    generator = torch.Generator().manual_seed(count)
    matrix = matrix_from(quantise(torch.randn(rows, columns, generator=generator).bfloat16(), "int4"), rows, "int4")
    x = torch.randn(count, columns, generator=generator).to(DTYPE)
    weight = dequant_int4(matrix.nibbles, matrix.scale_zero, torch.empty(columns, rows, dtype=DTYPE))
    product = int4_gemm_on_cuda(x.to(DEVICE), matrix.nibbles.to(DEVICE), matrix.scale_zero.to(DEVICE))
    expected = x.double() @ weight.double()
    assert product.shape == expected.shape
    assert (product.double().cpu() - expected).norm() <= 0.004 * expected.norm()


@pytest.mark.parametrize("has_sinks", [False, True])
@pytest.mark.parametrize("stored_as", ["bf16", "int8"])
@pytest.mark.parametrize("window", [None, 9])
def test_decode_attention_is_that_of_torch(window, stored_as, has_sinks, mixed_segments):
    """Decode rows and drafts, with a shared prefix and without, contexts of one token to several tiles, two in host memory."""
    geometry = dataclasses.replace(
        Manifest.load(EMBEDDED).geometry, num_layers=1, num_heads=8, num_kv_heads=2, head_dim=64, sliding_window=window,
        attention_sinks=has_sinks,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    make = lambda *shape: torch.randn(shape, generator=generator).to(DEVICE, DTYPE)  # noqa: E731
    kv = KvArena(geometry, 250, stored_as, DTYPE, DEVICE, host_tokens=150)
    kv.begin_step(range(400))
    kv.write(0, torch.arange(400, device=DEVICE), make(400, 2, 64), make(400, 2, 64))
    queries, outputs = make(19, 8, 64), []
    sinks = 2 * make(8) if has_sinks else None
    for attention in (GatherAttention(geometry, DTYPE, DEVICE), TritonAttention(geometry, DTYPE, DEVICE)):
        attention.plan(mixed_segments)
        outputs.append(attention.attend(0, queries, kv, sinks).float())
    assert (outputs[0] - outputs[1]).abs().max() <= 0.03
