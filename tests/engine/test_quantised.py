"""Quantised checkpoints: each format's codes and scales are kept, so the weights are those of its formula, bit for bit."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors import (
    MXFP4PackedCompressor,
    NaiveQuantizationCompressor,
    PackedQuantizationCompressor,
)
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

from rotary_batch.engine.kernels.matrices import FLOATS, num_columns, num_rows
from rotary_batch.engine.kernels.quant import dequantise
from rotary_batch.engine.packs.quantised.decoding import decode, stored
from rotary_batch.engine.packs.quantised.method import read_method
from rotary_batch.engine.packs.quantised.mxfp4 import fused_experts
from rotary_batch.engine.packs.quantised.source import QuantisedMatrix
from rotary_batch.model.tables import Table
from tests.engine.quantised import Random, written

N, K = 72, 96  # rows are not a multiple of the 64 that a block has


def method(tmp_path, tensors, **quantisation):
    return read_method(tmp_path, Table({"quantization_config": quantisation}, "config.json", "fetch it"), tensors)


def weights(matrix: QuantisedMatrix) -> torch.Tensor:
    """Of a matrix, in float32, its columns in their own order."""
    decoded = decode(matrix)
    whole = stored(matrix, decoded.weights)
    assert (num_rows(whole), num_columns(whole)) == (matrix.rows, matrix.columns)
    out = dequantise(whole, torch.empty(matrix.rows, matrix.columns))
    if decoded.order is None:
        return out
    return torch.empty_like(out).index_copy_(1, decoded.order, out)


GROUPS = [32, 96, -1, 64]  # 64 leaves a short group of 32


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("is_ordered", [False, True])
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_gptq(tmp_path, group, version, is_ordered, is_symmetric):
    one = Random((N, K), K if group == -1 else group, is_symmetric=is_symmetric, is_ordered=is_ordered)
    tensors = written(tmp_path / "model.safetensors", one.gptq("m", version))
    values = {"group_size": group, "sym": is_symmetric, "desc_act": is_ordered, "bits": 4}
    if version == 2:
        values["checkpoint_format"] = "gptq_v2"
    matrix = method(tmp_path, tensors, quant_method="gptq", **values).matrix(tensors, "m", (N, K))
    stored_group = {64: 32, -1: 96}.get(group, group)
    assert matrix.stored_as == f"int4:{stored_group}:{'f16' if is_symmetric else 'f32'}"
    assert torch.equal(weights(matrix).double(), one.weights)


@pytest.mark.parametrize("group", GROUPS)
def test_gptq_of_8_bits(tmp_path, group):
    one = Random((N, K), K if group == -1 else group, bits=8, is_symmetric=True)
    tensors = written(tmp_path / "model.safetensors", one.gptq("m"))
    matrix = method(tmp_path, tensors, quant_method="gptq", bits=8, group_size=group).matrix(tensors, "m", (N, K))
    assert matrix.stored_as.startswith("int8:")
    assert torch.equal(weights(matrix).double(), one.weights)


def test_gptq_overrides_of_single_modules(tmp_path):
    """`dynamic` names modules by patterns; the shapes of the tensors say the same."""
    own, other, bytes_ = Random((N, K), 32), Random((N, K), 96), Random((N, K), 32, bits=8, is_symmetric=True)
    tensors = written(
        tmp_path / "model.safetensors",
        own.gptq("own") | other.gptq("other") | bytes_.gptq("bytes") | {"plain.weight": torch.zeros(N, K)},
    )
    quantised = method(
        tmp_path,
        tensors,
        quant_method="gptq",
        bits=4,
        group_size=32,
        sym=False,
        dynamic={"+:other": {"group_size": -1}, ".*bytes.*": {"bits": 8, "sym": True}, "-:(a+)+plain": {}},
    )
    for name, one in {"own": own, "other": other, "bytes": bytes_}.items():
        assert torch.equal(weights(quantised.matrix(tensors, name, (N, K))).double(), one.weights)
    assert quantised.matrix(tensors, "plain", (N, K)) is None


@pytest.mark.parametrize("group", GROUPS)
def test_awq(tmp_path, group):
    one = Random((N, K), K if group == -1 else group)
    tensors = written(tmp_path / "model.safetensors", one.awq("m"))
    values = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    matrix = method(tmp_path, tensors, **values).matrix(tensors, "m", (N, K))
    assert torch.equal(weights(matrix).double(), one.weights)


def integers(one: Random, group: int | None, **args):
    """A config group of compressed-tensors, and its own decompressor's weights."""
    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(
            num_bits=one.bits,
            symmetric=bool((one.zeros == 2 ** (one.bits - 1)).all()),
            strategy="group" if group else "channel",
            group_size=group,
        ),
    )
    local = {name.removeprefix("m."): tensor for name, tensor in one.packed("m").items()}
    return scheme.model_dump(mode="json"), PackedQuantizationCompressor.decompress(local, scheme)["weight"]


@pytest.mark.parametrize("group", [32, 48, None])
@pytest.mark.parametrize(("bits", "is_symmetric"), [(4, True), (4, False), (8, True)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_compressed_tensors_of_integers(tmp_path, group, bits, is_symmetric, dtype):
    """Their own library computes in the type of the scales: its weights are ours, rounded to that type."""
    one = Random((N, K), group or K, bits=bits, dtype=dtype, is_symmetric=is_symmetric)
    scheme, expected = integers(one, group)
    tensors = written(tmp_path / "model.safetensors", one.packed("m"))
    quantised = method(
        tmp_path, tensors, quant_method="compressed-tensors", format="pack-quantized", config_groups={"group_0": scheme}
    )
    matrix = quantised.matrix(tensors, "m", (N, K))
    found = weights(matrix)
    if dtype == torch.float32 and not is_symmetric:  # a float32 scale times (8 - z) is rounded: the one loss there is
        assert (found - expected).abs().max() <= 3 * 2**-24 * 16 * one.scale.max()
    else:
        assert torch.equal(found.to(dtype), expected)
        assert torch.equal(found, one.weights.float())
    assert matrix.stored_as == f"int{bits}:{group or K}:{FLOATS[dtype] if is_symmetric else 'f32'}"


@pytest.mark.parametrize("strategy", ["tensor", "channel"])
def test_compressed_tensors_of_plain_bytes(tmp_path, strategy):
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=8, strategy=strategy))
    local = {
        "weight": torch.randint(-128, 128, (N, K), dtype=torch.int8),
        "weight_scale": torch.rand((N, 1) if strategy == "channel" else (1,)).bfloat16(),
    }
    expected = NaiveQuantizationCompressor.decompress(local, scheme)["weight"]
    matrix = compressed(tmp_path, local, scheme, format="int-quantized")
    assert matrix.stored_as == f"int8:{K}:bf16"
    assert torch.equal(weights(matrix).bfloat16(), expected)


def compressed(tmp_path, local, scheme, **values):
    """The matrix of one module that compressed-tensors has quantised."""
    tensors = written(tmp_path / "model.safetensors", {f"m.{name}": tensor for name, tensor in local.items()})
    groups = {"group_0": scheme.model_dump(mode="json")}
    quantised = method(tmp_path, tensors, quant_method="compressed-tensors", config_groups=groups, **values)
    return quantised.matrix(tensors, "m", (N, K))


FP8_SCALES = {
    "tensor": ({"strategy": "tensor"}, (1,), "fp8:0x0"),
    "channel": ({"strategy": "channel"}, (N, 1), "fp8:1x0"),
    "block": ({"strategy": "block", "block_structure": [16, 32]}, (5, 3), "fp8:16x32"),
}


@pytest.mark.parametrize("strategy", FP8_SCALES)
def test_compressed_tensors_of_8_bit_floats(tmp_path, strategy):
    args, shape, stored_as = FP8_SCALES[strategy]
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=8, type="float", **args))
    local = {"weight": torch.randn(N, K).to(torch.float8_e4m3fn), "weight_scale": torch.rand(shape)}
    expected = NaiveQuantizationCompressor.decompress(local, scheme)["weight"]
    matrix = compressed(tmp_path, local, scheme, format="float-quantized")
    assert matrix.stored_as == stored_as
    assert torch.equal(weights(matrix), expected)


def test_compressed_tensors_in_mxfp4(tmp_path):
    args = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32, scale_dtype="torch.uint8")
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    local = {
        "weight_packed": torch.randint(0, 256, (N, K // 2), dtype=torch.uint8),
        "weight_scale": torch.randint(100, 140, (N, K // 32), dtype=torch.uint8),
    }
    expected = MXFP4PackedCompressor.decompress(local, scheme)["weight"]
    matrix = compressed(tmp_path, local, scheme, format="mxfp4-pack-quantized")
    assert matrix.stored_as == "ggml:MXFP4"
    assert torch.equal(weights(matrix).to(expected.dtype), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e8m0fnu, torch.uint8])
@pytest.mark.parametrize("side", [None, (24, 32), (8, 48)])
def test_fp8(tmp_path, dtype, side):
    """As transformers dequantises it; blocks that it cannot divide have a test of their own."""
    shape = (N // side[0], K // side[1]) if side else (1, 1)
    exponents = torch.randint(110, 130, shape, dtype=torch.uint8)
    scale = torch.rand(shape).to(dtype) if dtype.itemsize > 1 else exponents.view(dtype)
    weight = torch.randn(N, K).to(torch.float8_e4m3fn)
    tensors = written(tmp_path / "model.safetensors", {"m.weight": weight, "m.weight_scale_inv": scale})
    quantised = method(tmp_path, tensors, quant_method="fp8", weight_block_size=list(side) if side else None)
    matrix = quantised.matrix(tensors, "m", (N, K))
    expected = Fp8Dequantize(None)._dequantize_one(weight, scale, torch.float32)
    assert torch.equal(weights(matrix), expected)
    assert matrix.stored_as == (f"fp8:{side[0]}x{side[1]}" if side else "fp8:0x0")


def test_fp8_with_blocks_that_are_cut_short(tmp_path):
    weight, scale = torch.randn(N, K).to(torch.float8_e4m3fn), torch.rand(2, 3)
    tensors = written(tmp_path / "model.safetensors", {"m.weight": weight, "m.weight_scale_inv": scale})
    matrix = method(tmp_path, tensors, quant_method="fp8", weight_block_size=[50, 40]).matrix(tensors, "m", (N, K))
    expected = weight.float() * scale.repeat_interleave(50, 0)[:N].repeat_interleave(40, 1)[:, :K]
    assert torch.equal(weights(matrix), expected)


def test_mxfp4_of_fused_experts(tmp_path):
    """gpt-oss: rows of gate and up alternate; as transformers dequantises it, which gives the transpose."""
    blocks = torch.randint(0, 256, (3, 2 * N, K // 32, 16), dtype=torch.uint8)
    scales = torch.randint(100, 140, (3, 2 * N, K // 32), dtype=torch.uint8)
    tensors = written(
        tmp_path / "model.safetensors", {"e.gate_up_proj_blocks": blocks, "e.gate_up_proj_scales": scales}
    )
    expected = _convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
    for first_row in (0, 1):
        found = fused_experts(tensors, "e.gate_up_proj", 3, (N, K), first_row=first_row, row_step=2)
        assert [matrix.stored_as for matrix in found] == ["ggml:MXFP4"] * 3
        for expert, matrix in enumerate(found):
            assert torch.equal(weights(matrix), expected[expert, first_row::2])
