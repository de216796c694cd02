"""The table of choices, row by row, and the cap on levels."""

from __future__ import annotations

import pytest
import torch
from emulated import NATIVE_LEVELS

from rotary_batch.config import ISA_LEVELS, Settings, user_values
from rotary_batch.engine import open_engine
from rotary_batch.engine.kernels import cpu
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import CHOICES, FUNCTIONS, UNPACKED, Level, Product, cap, choose
from rotary_batch.engine.kernels.linear import FastMatmul
from rotary_batch.errors import ConfigError


def up_to(level: Level) -> frozenset[Level]:
    return frozenset(one for one in Level if one <= level)


PORTABLE, AVX2, AVX512_BF16, AMX = Level
SHAPE = (128, 96)


# x, how the matrix is stored, rows -> the way at each level
@pytest.mark.parametrize(
    ("x", "stored_as", "rows", "ways"),
    [
        ("f32", "bf16", 1, ["torch_few_bf16", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "bf16", 5, ["torch_unpacked", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "bf16", 256, ["torch_unpacked", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "bf16", 257, ["torch_unpacked"] * 4),
        ("f32", "f32", 7, ["torch_product"] * 4),
        ("f32", "int8", 8, ["torch_int8_operator", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "int8", 9, ["torch_unpacked", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "int8", 257, ["torch_unpacked"] * 4),
        ("f32", "int4", 32, ["torch_int4_operator", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "int4", 4096, ["torch_unpacked", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("bf16", "bf16", 0, ["torch_product"] * 4),
        ("bf16", "bf16", 1, ["torch_product", "torch_product", "gemv_avx512bf16", "gemv_avx512bf16"]),
        ("bf16", "bf16", 4, ["torch_product", "torch_product", "gemv_avx512bf16", "gemv_avx512bf16"]),
        ("bf16", "bf16", 5, ["torch_product", "torch_product", "gemm_avx512bf16", "gemm_amx"]),
        ("bf16", "bf16", 4096, ["torch_product", "torch_product", "gemm_avx512bf16", "gemm_amx"]),
        ("bf16", "int8", 4, ["torch_int8_operator", "torch_int8_operator", "gemv_avx512bf16", "gemv_avx512bf16"]),
        ("bf16", "int8", 5, ["torch_int8_operator", "torch_int8_operator", "gemm_avx512bf16", "gemm_amx"]),
        ("bf16", "int8", 64, ["torch_unpacked", "torch_unpacked", "gemm_avx512bf16", "gemm_amx"]),
        ("bf16", "int4", 1, ["torch_int4_operator", "torch_int4_operator", "gemm_avx512bf16", "gemm_avx512bf16"]),
        ("bf16", "int4", 2, ["torch_int4_operator", "torch_int4_operator", "gemm_avx512bf16", "gemm_amx"]),
        ("bf16", "int4", 33, ["torch_unpacked", "torch_unpacked", "gemm_avx512bf16", "gemm_amx"]),
        ("bf16", "f32", 5, ["torch_unpacked"] * 4),
    ],
)  # fmt: skip
def test_the_way_at_each_level(x, stored_as, rows, ways):
    product = Product(x, stored_as, is_packed=True, shape=(rows, *SHAPE))
    assert [choose(product, up_to(level)) for level in Level] == ways


# Rows of a matrix that are no block, columns that fill no register, a matrix in pieces.
@pytest.mark.parametrize(
    ("x", "stored_as", "shape", "is_packed", "way"),
    [
        ("bf16", "bf16", (4, 100, 96), True, "gemv_avx512bf16"),
        ("bf16", "bf16", (4, 102, 96), True, "torch_product"),
        ("bf16", "bf16", (4, 100, 40), True, "torch_product"),
        ("bf16", "bf16", (5, 100, 96), True, "torch_product"),
        ("bf16", "bf16", (5, 128, 96), False, "torch_product"),
        ("bf16", "int8", (5, 100, 96), True, "torch_int8_operator"),
        ("bf16", "int8", (5, 100, 100), True, "torch_unpacked"),
        ("bf16", "int8", (5, 128, 96), False, "torch_unpacked"),
        ("bf16", "int4", (5, 100, 96), True, "gemm_amx"),
        ("f32", "bf16", (3, 62, 96), True, "torch_few_bf16"),
        ("f32", "bf16", (5, 62, 96), True, "torch_unpacked"),
        ("f32", "bf16", (5, 64, 92), True, "torch_unpacked"),
        ("f32", "int8", (5, 64, 96), False, "torch_unpacked"),
        ("f32", "int4", (5, 64, 96), False, "torch_unpacked"),
    ],
)
def test_what_no_kernel_takes_goes_torch_ways(x, stored_as, shape, is_packed, way):
    assert choose(Product(x, stored_as, is_packed, shape), frozenset(Level)) == way


def test_a_level_that_is_left_out_has_the_next_one_below_in_its_place():
    products = {rows: Product("bf16", "bf16", is_packed=True, shape=(rows, *SHAPE)) for rows in (4, 5)}
    for left_out, ways in (
        (AMX, ["gemv_avx512bf16", "gemm_avx512bf16"]), (AVX512_BF16, ["gemm_amx", "gemm_amx"]), (AVX2, ["gemv_avx512bf16", "gemm_amx"]),
    ):  # fmt: skip
        assert [choose(product, frozenset(Level) - {left_out}) for product in products.values()] == ways


def test_every_way_is_there_and_every_function_has_a_way():
    ways = {choice.way for choice in CHOICES} | {UNPACKED}
    for way in ways:
        assert hasattr(FastMatmul if way.startswith("torch_") else CpuKernels, way)
    assert {name.rsplit("_", 1)[0] for name in FUNCTIONS} == {way for way in ways if not way.startswith("torch_")}


def test_the_levels_are_those_that_settings_name():
    assert tuple(level.label for level in Level) == ISA_LEVELS
    assert [cap({"ROTARY_BATCH_MAX_ISA": label}) for label in ISA_LEVELS] == list(Level)
    assert cap({}) == AMX


def test_the_cap_is_no_unknown_key_and_a_wrong_one_is_named():
    def settings(value):
        environment = {"ROTARY_BATCH_MAX_ISA": value, "ROTARY_BATCH_JOB": "review"}
        return Settings(**user_values(flags={}, environment=environment, folders=[], config=None))

    assert settings("avx2").job == "review"
    for wrong in ("avx", "", "AVX2"):
        message = f"ROTARY_BATCH_MAX_ISA: '{wrong}' is not one of portable, avx2, avx512_bf16, amx"
        with pytest.raises(ConfigError, match=message):
            settings(wrong)
        with pytest.raises(ConfigError, match=message):
            cap({"ROTARY_BATCH_MAX_ISA": wrong})


@pytest.mark.parametrize("label", ISA_LEVELS)
def test_an_engine_uses_nothing_above_its_cap(tiny_pack, label):
    """Rows are bf16 only where kernels multiply bf16; the answers are those of exact numerics."""
    with_cap = open_engine(tiny_pack, numerics="fast", max_isa=label)
    exact = open_engine(tiny_pack, numerics="exact")
    try:
        has_bf16 = min(Level[label.upper()], max(NATIVE_LEVELS, default=PORTABLE)) >= AVX512_BF16
        if not NATIVE_LEVELS and label in {"avx512_bf16", "amx"}:  # without kernels torch's own products count
            has_bf16 = cpu._torch_has_bf16()
        assert with_cap.footprint.activation_nbytes == (2 if has_bf16 else 4)
        prompt = [5, 9, 200, 31, 7]
        assert (with_cap.logits(prompt) - exact.logits(prompt)).abs().max() <= 0.15
    finally:
        with_cap.close()
        exact.close()


def test_a_cap_that_is_no_level_is_refused(tiny_pack):
    with pytest.raises(ConfigError, match="max_isa: 'avx9' is not one of"):
        open_engine(tiny_pack, max_isa="avx9")


def test_the_default_is_what_the_environment_allows(monkeypatch):
    monkeypatch.setenv("ROTARY_BATCH_MAX_ISA", "portable")
    matmul = FastMatmul(torch.device("cpu"))
    assert (matmul.kernels.level, matmul.dtype) == (PORTABLE, torch.float32)
