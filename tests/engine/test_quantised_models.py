"""Whole quantised checkpoints: packed and run, they give the logits of plain ones with their dequantised weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rotary_batch.engine import open_engine
from rotary_batch.engine.packs.checkpoint import open_checkpoint
from rotary_batch.engine.packs.pack import pack, verify
from tests.engine.quantised import Random, matrix_shapes, write_checkpoint

PROMPT = [256, *range(40, 90)]
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
INT4 = {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 32}
FLOAT8 = {"type": "float", "num_bits": 8, "strategy": "channel"}


def gptq(**values):
    def one(name, shape, seed):
        module = Random(
            shape, 32, is_symmetric=values.get("sym", True), is_ordered=values.get("desc_act", False), seed=seed
        )
        return module.gptq(name), module.weights

    return GPTQ | values, one


def awq(name, shape, seed):
    module = Random(shape, 32, seed=seed)
    return module.awq(name), module.weights


def packed(bits, dtype):
    def one(name, shape, seed):
        module = Random(shape, 32, bits=bits, dtype=dtype, is_symmetric=True, seed=seed)
        return module.packed(name), module.weights

    weights = INT4 | {"num_bits": bits}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"0": {"weights": weights}},
    }, one


def fp8(block: tuple[int, int] | None, suffix: str):
    def one(name, shape, seed):
        generator = torch.Generator().manual_seed(seed)
        grid = (-(-shape[0] // block[0]), -(-shape[1] // block[1])) if block else (shape[0], 1)
        weight = torch.randn(shape, generator=generator).to(torch.float8_e4m3fn)
        scale = torch.rand(grid, generator=generator) * 0.2
        high, wide = block or (1, shape[1])
        whole = scale.repeat_interleave(high, 0)[: shape[0]].repeat_interleave(wide, 1)[:, : shape[1]]
        return {f"{name}.weight": weight, f"{name}{suffix}": scale}, weight.float() * whole

    return one


METHODS = {
    "gptq": gptq(sym=False),
    "gptq symmetric": gptq(),
    "gptq of 8 bits": (
        GPTQ | {"bits": 8},
        lambda name, shape, seed: (
            (module := Random(shape, 32, bits=8, is_symmetric=True, seed=seed)).gptq(name),
            module.weights,
        ),
    ),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, awq),
    "compressed-tensors": packed(4, torch.bfloat16),
    "compressed-tensors of 8 bits": packed(8, torch.float16),
    "compressed-tensors fp8": (
        {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": {"0": {"weights": FLOAT8}},
        },
        fp8(None, ".weight_scale"),
    ),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [32, 32]}, fp8((32, 32), ".weight_scale_inv")),
    "fp8 cut short": ({"quant_method": "fp8", "weight_block_size": [40, 128]}, fp8((40, 128), ".weight_scale_inv")),
}


def checkpoints(folder: Path, family: str, quantisation, make) -> tuple[Path, Path]:
    """A quantised checkpoint, and the plain one with its weights."""
    quantised, plain = {}, {}
    for seed, (name, shape) in enumerate(matrix_shapes(family).items()):
        if name.endswith(".gate") and quantisation["quant_method"] != "gptq":  # some GPTQ exports quantise routers too
            plain[f"{name}.weight"] = quantised[f"{name}.weight"] = torch.randn(shape)
            continue
        tensors, weights = make(name, shape, seed)
        quantised |= tensors
        plain[f"{name}.weight"] = weights.float()
    return (
        write_checkpoint(folder / "quantised", family, quantised, **quantisation),
        write_checkpoint(folder / "plain", family, plain),
    )


def logits(checkpoint: Path, pack_dir: Path) -> torch.Tensor:
    pack(checkpoint, pack_dir)
    assert verify(pack_dir) == []
    engine = open_engine(pack_dir, numerics="exact")
    try:
        return engine.logits(PROMPT)
    finally:
        engine.close()


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "llama"])
@pytest.mark.parametrize("kind", METHODS)
def test_a_quantised_checkpoint_runs_as_its_dequantised_self(tmp_path, family, kind):
    quantised, plain = checkpoints(tmp_path, family, *METHODS[kind])
    assert not open_checkpoint(quantised).is_plain
    found, expected = logits(quantised, tmp_path / "pack"), logits(plain, tmp_path / "pack of plain")
    assert expected.isfinite().all()
    assert torch.equal(found, expected)
