"""Triton kernels against their torch references: on CUDA, and without it through Triton's interpreter."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rotary_batch.commands.packs import EMBEDDED
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.kernels.cuda import HAS_TRITON, int4_product_on_cuda, triton_kernels, unpack_int4
from rotary_batch.engine.kernels.quant import encode, matrix_from
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
def test_unpacking_int4_is_the_reference_bit_by_bit(rows, columns):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).bfloat16()
    matrix = matrix_from(encode(weight, "int4"), rows)
    expected = unpack_int4(matrix.nibbles, matrix.scale_zero, torch.empty(columns, rows, dtype=DTYPE))
    found = torch.zeros(columns, rows, dtype=DTYPE, device=DEVICE)
    nibbles, scale_zero = matrix.nibbles.to(DEVICE), matrix.scale_zero.to(DEVICE)
    group = columns // scale_zero.shape[0]
    triton_kernels().unpack_int4_kernel[(len(nibbles), -(-columns // 64))](
        nibbles, scale_zero, found, columns, rows, group, scale_zero.stride(0), TILE=64
    )
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("count", [1, 5, 16, 33, 128])
@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (192, 384), (576, 1280)])
def test_a_product_with_packed_weights_is_the_one_with_unpacked_weights(rows, columns, count):
    generator = torch.Generator().manual_seed(count)
    matrix = matrix_from(encode(torch.randn(rows, columns, generator=generator).bfloat16(), "int4"), rows)
    x = torch.randn(count, columns, generator=generator).to(DTYPE)
    weight = unpack_int4(matrix.nibbles, matrix.scale_zero, torch.empty(columns, rows, dtype=DTYPE))
    found = int4_product_on_cuda(x.to(DEVICE), matrix.nibbles.to(DEVICE), matrix.scale_zero.to(DEVICE))
    expected = x.double() @ weight.double()
    assert found.shape == expected.shape
    assert (found.double().cpu() - expected).norm() <= 0.004 * expected.norm()


@pytest.mark.parametrize("kept", ["bf16", "int8"])
@pytest.mark.parametrize("window", [None, 9])
def test_decode_over_keys_as_they_lie_is_the_torch_way(window, kept, mixed_rows):
    """Decode rows and drafts, with a shared prefix and without, contexts of one key to several tiles, two visitors."""
    geometry = dataclasses.replace(
        Manifest.load(EMBEDDED).geometry, num_layers=1, num_heads=8, num_kv_heads=2, head_dim=64, sliding_window=window
    )
    generator = torch.Generator().manual_seed(1)
    make = lambda *shape: torch.randn(shape, generator=generator).to(DEVICE, DTYPE)  # noqa: E731
    kv = KvArena(geometry, 250, kept, DTYPE, DEVICE, host_tokens=150)
    kv.start(range(400))
    kv.write(0, torch.arange(400, device=DEVICE), make(400, 2, 64), make(400, 2, 64))
    queries, found = make(19, 8, 64), []
    for attention in (GatherAttention(geometry, DTYPE, DEVICE), TritonAttention(geometry, DTYPE, DEVICE)):
        attention.plan(mixed_rows)
        found.append(attention.attend(0, queries, kv).float())
    assert (found[0] - found[1]).abs().max() <= 0.03
