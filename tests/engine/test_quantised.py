"""Quantised checkpoints: each format's codes and scales are kept, so the weights are those of its formula, bit for bit."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors import (
    MXFP4PackedCompressor,
    NaiveQuantizationCompressor,
    PackedQuantizationCompressor,
)
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

from rotary_batch.engine.kernels.matrices import FLOATS, is_well_formed, num_columns, num_rows
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import dequantise, dequantised_rows, matrix_from
from rotary_batch.engine.packs.loading import DTYPES
from rotary_batch.engine.packs.quantised.decoding import column_order, decode, quantised_parts
from rotary_batch.engine.packs.quantised.expert import some_columns, some_rows, stacked_as
from rotary_batch.engine.packs.quantised.method import read_method
from rotary_batch.engine.packs.quantised.mxfp4 import fused_matrix
from rotary_batch.engine.packs.quantised.source import QuantisedMatrix
from rotary_batch.engine.packs.quantised.sources import expert_sources
from rotary_batch.engine.packs.quantised.weights import Weights, stacked, stored
from rotary_batch.errors import ModelError
from rotary_batch.model.slabs import MatrixPart, matrix_parts
from rotary_batch.model.tables import Table
from tests.engine.quantised import Random, written

SAFETENSORS_NAMES = {dtype: name for name, dtype in DTYPES.items()}
N, K = 72, 96  # rows are not a multiple of the 64 that a block has


def method(tmp_path, tensors, **quantisation):
    return read_method(tmp_path, Table({"quantization_config": quantisation}, "config.json", "fetch it"), tensors)


def weights(matrix: QuantisedMatrix) -> torch.Tensor:
    """Of a matrix, in float32, its columns in their own order."""
    decoded = decode(matrix, matrix.stored_as)
    out = dequantised(decoded.weights, matrix.stored_as)
    assert out.shape == matrix.shape
    return out if decoded.order is None else torch.empty_like(out).index_copy_(1, decoded.order, out)


def dequantised(codes: Weights, stored_as: str) -> torch.Tensor:
    matrix = stored(codes, stored_as)
    assert is_well_formed(matrix)
    return dequantise(matrix, torch.empty(num_rows(matrix), num_columns(matrix)))


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


@pytest.mark.parametrize(("columns", "stored_group"), [(2048, 512), (1408, 352), (544, 32), (40, 40)])
def test_rows_of_one_group_are_stored_in_groups_that_the_kernels_read(tmp_path, columns, stored_group):
    one = Random((N, columns), columns, is_symmetric=True)
    tensors = written(tmp_path / "model.safetensors", one.gptq("m", 1))
    quantised = method(tmp_path, tensors, quant_method="gptq", group_size=-1, sym=True, desc_act=False, bits=4)
    matrix = quantised.matrix(tensors, "m", (N, columns))
    assert matrix.stored_as == f"int4:{stored_group}:f16"
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


def test_awq_as_another_reader_has_it(tmp_path):
    """compressed-tensors converts AutoAWQ's files to its own."""
    one = Random((N, K), 32)
    tensors = AutoAWQConverter(group_size=32).process(one.awq("m"))
    places = written(tmp_path / "awq.safetensors", one.awq("m"))
    converted = written(tmp_path / "converted.safetensors", tensors)
    group = {"weights": W4A16 | {"symmetric": False}}
    own = method(tmp_path, places, **AWQ).matrix(places, "m", (N, K))
    theirs = method(tmp_path, converted, **CT | {"config_groups": {"0": group}}).matrix(converted, "m", (N, K))
    assert torch.equal(weights(own), weights(theirs))
    assert own.stored_as == theirs.stored_as == "int4:32:f32"


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


def test_compressed_tensors_with_columns_in_the_order_of_activations(tmp_path):
    """actorder "group" is no longer written, and their library no longer reads it."""
    one = Random((N, K), 32, is_symmetric=True, is_ordered=True)
    tensors = written(tmp_path / "model.safetensors", one.packed("m"))
    group = {"weights": W4A16 | {"actorder": "group"}}
    matrix = method(tmp_path, tensors, **CT | {"config_groups": {"0": group}}).matrix(tensors, "m", (N, K))
    assert matrix.is_ordered
    assert torch.equal(weights(matrix).double(), one.weights)


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
        for expert in range(3):
            matrix = fused_matrix(tensors, "e.gate_up_proj", (expert, 3), (N, K), (first_row, 2))
            assert matrix.stored_as == "ggml:MXFP4"
            assert torch.equal(weights(matrix), expected[expert, first_row::2])
    assert fused_matrix(tensors, "e.down_proj", (0, 3), (N, K)) is None


def fp8_tensors(name: str, block: tuple[int, int], seed: int, shape=(N, K)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    grid = (-(-shape[0] // (block[0] or shape[0])), -(-shape[1] // (block[1] or shape[1])))
    weight = torch.randn(shape, generator=generator).to(torch.float8_e4m3fn)
    return {f"{name}.weight": weight, f"{name}.weight_scale": torch.rand(grid, generator=generator)}


def matrices(tmp_path, kind: str, shape=(N, K)):
    """`gate` and `up` in one of the formats."""
    if kind == "gptq":
        tensors = Random(shape, 64).gptq("gate") | Random(shape, 64, seed=1).gptq("up")
        values = {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": False}
    elif kind == "int8":
        one, two = (Random(shape, 32, bits=8, is_symmetric=True, seed=seed) for seed in (0, 1))
        tensors = one.gptq("gate") | two.gptq("up")
        values = {"quant_method": "gptq", "bits": 8, "group_size": 32}
    else:
        block = tuple(int(side) for side in kind.removeprefix("fp8:").split("x"))
        tensors = fp8_tensors("gate", block, 0, shape) | fp8_tensors("up", block, 1, shape)
        values = {"quant_method": "fp8"} | ({"weight_block_size": list(block)} if all(block) else {})
    places = written(tmp_path / "model.safetensors", tensors)
    quantised = method(tmp_path, places, **values)
    return [quantised.matrix(places, name, shape) for name in ("gate", "up")]


FORMS = {
    "gptq": "int4:32:f32",
    "int8": "int8:32:f16",
    "fp8:0x0": "fp8:1x0",
    "fp8:1x0": "fp8:1x0",
    "fp8:16x32": "fp8:8x32",  # of 72 rows, 4 blocks of 16 and a half
    "fp8:24x32": "fp8:24x32",
    "fp8:128x128": "fp8:8x128",
}


@pytest.mark.parametrize("kind", FORMS)
def test_gate_over_up_is_one_matrix(tmp_path, kind):
    gate, up = matrices(tmp_path, kind)
    form = stacked_as(gate, up)
    assert form == FORMS[kind]
    both = stacked(decode(gate, form).weights, decode(up, form).weights)
    assert torch.equal(dequantised(both, form), torch.cat([weights(gate), weights(up)]))


@pytest.mark.parametrize("kind", FORMS)
def test_slices_of_a_matrix(tmp_path, kind):
    """A dense model is cut into slices: rows of gate and up, columns of down."""
    gate, _ = matrices(tmp_path, kind, (96, 96))
    whole = weights(gate)
    for begin in range(0, 96, 48):
        assert torch.equal(weights(some_rows(gate, begin, begin + 48)), whole[begin : begin + 48])
        assert torch.equal(weights(some_columns(gate, begin, begin + 48)), whole[:, begin : begin + 48])


def test_blocks_of_mxfp4_are_not_cut(tmp_path):
    tensors = written(
        tmp_path / "model.safetensors",
        {
            "m_blocks": torch.zeros(1, N, K // 32, 16, dtype=torch.uint8),
            "m_scales": torch.zeros(1, N, K // 32, dtype=torch.uint8),
        },
    )
    matrix = fused_matrix(tensors, "m", (0, 1), (N, K))
    assert weights(some_columns(matrix, 32, 64)).shape == (N, 32)
    with pytest.raises(ModelError, match="columns 48 to 96 cut a block of MXFP4"):
        some_columns(matrix, 48, 96)


def test_ordered_columns_of_an_expert(tmp_path):
    """Rows of gate and up follow the columns of down; the inputs of gate and up are gathered."""
    gate, up = (Random((N, K), 32, is_ordered=True, seed=seed) for seed in (0, 1))
    down = Random((40, N), 24, is_ordered=True, seed=2)
    tensors = written(tmp_path / "model.safetensors", gate.gptq("gate") | up.gptq("up") | down.gptq("down"))
    quantised = method(
        tmp_path, tensors, **GPTQ | {"desc_act": True, "sym": False, "dynamic": {"+:down": {"group_size": 24}}}
    )
    shapes = {"gate": (N, K), "up": (N, K), "down": (40, N)}
    sources = {name: quantised.matrix(tensors, name, shape) for name, shape in shapes.items()}
    forms = {name: source.stored_as for name, source in expert_sources(*sources.values()).items()}
    assert forms == {"gate": "int4:32:f32:ordered", "up": "int4:32:f32:ordered", "down": "int4:24:f32"}
    found, order = {}, column_order(sources["down"])
    for name, form in forms.items():
        parts = quantised_parts([sources[name]], form, None if name == "down" else order)
        rows, columns = shapes[name]
        assert [
            MatrixPart(suffix, SAFETENSORS_NAMES[part.dtype], tuple(part.shape)) for suffix, part in parts.items()
        ] == matrix_parts(form, rows, columns, "BF16")
        found[name] = matrix_from(parts, rows, form)
        assert is_well_formed(found[name])
    for name, one in (("gate", gate), ("up", up)):
        out = dequantise(found[name], torch.empty(N, K))
        assert torch.equal(out.double(), one.weights[order])
        assert torch.equal(dequantised_rows(found[name], torch.tensor([5, 70, 5])), out[[5, 70, 5]])
    x = torch.randn(5, K)
    for numerics in (Numerics("exact", torch.device("cpu")), Numerics("fast", torch.device("cpu"))):
        rows = x.to(numerics.dtype)
        middle = numerics.linear(rows, found["gate"]) * numerics.linear(rows, found["up"])
        product = numerics.linear(middle, found["down"])
        expected = ((x.double() @ gate.weights.T) * (x.double() @ up.weights.T)) @ down.weights.T
        bound = 1e-5 if numerics.exact else 0.02
        assert (product - expected).abs().max() < bound * expected.abs().max()


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32}
W4A16 = {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 32}
CT = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"0": {"weights": W4A16}}}
REFUSED = [
    (GPTQ | {"bits": 3}, "GPTQ of 3 bits; this version reads 4 and 8"),
    (GPTQ | {"bits": 8, "sym": False}, "8 bits with zero points"),
    (GPTQ | {"bits": None}, "quantization_config: bits is null"),
    (GPTQ | {"group_size": 0}, "group_size is 0"),
    (GPTQ | {"group_size": 2**40}, "group_size is 1099511627776, not a whole number from -1"),
    (GPTQ | {"sym": "yes"}, 'sym is "yes", not true or false'),
    (GPTQ | {"checkpoint_format": "marlin"}, 'GPTQ in the format "marlin"'),
    (GPTQ | {"is_marlin_format": True}, "GPTQ in the format marlin"),
    (GPTQ | {"pack_dtype": "int16"}, 'pack_dtype is "int16"; only int32'),
    (GPTQ | {"dynamic": {"+:x": {"bits": 2}}}, "dynamic: \\+:x: GPTQ of 2 bits"),
    (GPTQ | {"dynamic": {str(key): {} for key in range(2**14 + 1)}}, "16,385 overrides in dynamic"),
    (GPTQ | {"dynamic": {str(n): {"group_size": n} for n in range(1, 100)}}, "99 different overrides in dynamic"),
    (AWQ | {"version": "gemv"}, 'AWQ of the version "gemv", which packs differently'),
    (AWQ | {"version": "GEMV_FAST"}, 'AWQ of the version "gemv_fast"'),
    (AWQ | {"bits": 8}, "AWQ of 8 bits"),
    (CT | {"format": "nvfp4-pack-quantized"}, 'in the format "nvfp4-pack-quantized"'),
    (CT | {"format": "marlin-24"}, 'in the format "marlin-24"'),
    (CT | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "weights are sparse"),
    (CT | {"config_groups": {}}, "0 config_groups"),
    (CT | {"config_groups": {"0": {"weights": W4A16 | {"num_bits": 3}}}}, "int of 3 bits"),
    (CT | {"config_groups": {"0": {"weights": W4A16 | {"strategy": "tensor_group"}}}}, "strategy is .tensor_group"),
    (CT | {"config_groups": {"0": {"weights": W4A16 | {"strategy": "block"}}}}, "block_structure is missing"),
    ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size is a list of 1, not two whole numbers"),
    ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "weight_block_size is a list of 2, not two whole numbers"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 'quantised by "bitsandbytes"; this version reads gptq'),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, r'quantised by "modelopt \(NVFP4\)"'),
    ({"quant_method": "hqq"}, 'quantised by "hqq"'),
    ({"quant_method": 4}, "quant_method is 4, not a string"),
    ({}, "quant_method is missing"),
]


@pytest.mark.parametrize(("quantisation", "fact"), REFUSED)
def test_a_config_that_cannot_be_read(tmp_path, quantisation, fact):
    with pytest.raises(ModelError, match=fact):
        method(tmp_path, {}, **quantisation)


def changed(tensors, suffix: str, value: torch.Tensor | None):
    """Tensors of which one is another, or missing."""
    name = next(name for name in tensors if name.endswith(suffix))
    return {key: tensor for key, tensor in tensors.items() if key != name} | ({} if value is None else {name: value})


CONTRADICTING = [
    (
        "gptq",
        ".qweight",
        torch.zeros(K // 8, N - 1, dtype=torch.int32),
        r"m.qweight has shape \[12, 71\]; the configs say \[12, 72\]",
    ),
    ("gptq", ".qweight", torch.zeros(K // 8, N), "m.qweight is of type F32, not I32"),
    ("gptq", ".qzeros", None, "m.qzeros is in none of its files"),
    ("gptq", ".scales", torch.zeros(2, N).half(), r"m.scales has shape \[2, 72\]; the configs say \[3, 72\]"),
    ("gptq", ".g_idx", torch.zeros(K, dtype=torch.int32), "m.g_idx does not divide 96 columns into groups of 32"),
    ("gptq", ".g_idx", torch.full((K,), -(2**31), dtype=torch.int32), "m.g_idx does not divide 96 columns"),
    ("gptq", ".g_idx", torch.arange(K).flip(0).int() // 32, "m.g_idx reorders columns, but the config says"),
    (
        "gptq",
        ".qzeros",
        torch.full((3, N // 8), -0x77777778, dtype=torch.int32),
        "m.qzeros has the zero point 9, but the .* symmetric, which is 8",
    ),
    ("awq", ".qzeros", None, "m.qzeros is in none of its files"),
    (
        "awq",
        ".qweight",
        torch.zeros(K // 8, N, dtype=torch.int32),
        r"m.qweight has shape \[12, 72\]; the configs say \[96, 9\]",
    ),
    (
        "packed",
        ".weight_scale",
        torch.zeros(N, 5).half(),
        r"m.weight_scale has shape \[72, 5\]; the configs say \[72, 3\]",
    ),
    (
        "packed",
        ".weight_packed",
        torch.zeros(N, K // 8 + 1, dtype=torch.int32),
        r"m.weight_packed has shape \[72, 13\]",
    ),
    ("packed", ".weight_packed", torch.zeros(N, K // 8), "m.weight_packed is of type F32, not I32"),
]


@pytest.mark.parametrize(("kind", "suffix", "value", "fact"), CONTRADICTING)
def test_tensors_that_contradict_the_config(tmp_path, kind, suffix, value, fact):
    one = Random((N, K), 32, is_symmetric=kind != "awq")
    tensors = changed(getattr(one, kind)("m"), suffix, value)
    places = written(tmp_path / "model.safetensors", tensors)
    quantised = method(tmp_path, places, **{"gptq": GPTQ, "awq": AWQ, "packed": CT}[kind])
    with pytest.raises(ModelError, match=f"{tmp_path}.*: tensor {fact}"):
        weights(quantised.matrix(places, "m", (N, K)))


def test_groups_that_would_need_a_scale_for_every_column_are_refused(tmp_path):
    one = Random((N, K), 31)
    places = written(tmp_path / "model.safetensors", one.gptq("m"))
    quantised = method(tmp_path, places, **GPTQ | {"group_size": 31})
    with pytest.raises(ModelError, match="m: rows of 96 columns in groups of 31 have only 1 in common"):
        quantised.matrix(places, "m", (N, K))


def test_more_that_is_refused_by_name(tmp_path):
    one = Random((N, K), 32)
    gptq = written(tmp_path / "gptq.safetensors", one.gptq("m"))
    with pytest.raises(ModelError, match=r"m.qweight is quantised .GPTQ or AWQ., but neither config.json .* says how"):
        read_method(tmp_path, Table({}, "config.json", "fetch it"), gptq)
    fused = written(tmp_path / "fused.safetensors", {"mlp.experts.gate_up_proj_packed": torch.zeros(2)})
    with pytest.raises(ModelError, match=r"gate_up_proj_packed: fused experts that llm-compressor 0.12.0 damaged"):
        method(tmp_path, fused, **CT)
    nvfp4 = {"m.weight_packed": torch.zeros(N, K // 2, dtype=torch.uint8), "m.weight_global_scale": torch.ones(1)}
    places = written(tmp_path / "nvfp4.safetensors", nvfp4)
    with pytest.raises(ModelError, match="m is in NVFP4"):
        method(tmp_path, places, **CT).matrix(places, "m", (N, K))
    e5m2 = written(tmp_path / "e5m2.safetensors", {"m.weight": torch.zeros(N, K).to(torch.float8_e5m2)})
    with pytest.raises(ModelError, match=r"m.weight is of type F8_E5M2; this version reads F8_E4M3"):
        method(tmp_path, e5m2, quant_method="fp8").matrix(e5m2, "m", (N, K))


def test_a_config_in_a_file_of_its_own(tmp_path):
    one = Random((N, K), 32)
    tensors = written(tmp_path / "model.safetensors", one.gptq("m") | {"plain.weight": torch.zeros(N, K)})
    (tmp_path / "quantize_config.json").write_text('{"bits": 4, "group_size": 32, "sym": false, "desc_act": false}')
    quantised = read_method(tmp_path, Table({}, "config.json", "fetch it"), tensors)
    assert torch.equal(weights(quantised.matrix(tensors, "m", (N, K))).double(), one.weights)
    assert quantised.matrix(tensors, "plain", (N, K)) is None
    (tmp_path / "quantize_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"quantize_config.json: not a JSON object; fetch the file again"):
        read_method(tmp_path, Table({}, "config.json", "fetch it"), tensors)


def test_a_plain_checkpoint_has_no_method(tmp_path):
    tensors = written(tmp_path / "model.safetensors", {"m.weight": torch.zeros(N, K)})
    assert read_method(tmp_path, Table({}, "config.json", "fetch it"), tensors) is None
