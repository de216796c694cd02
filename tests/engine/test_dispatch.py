"""The table of candidates, row by row, and the cap on levels."""

from __future__ import annotations

import re

import pytest
import torch
from emulated import NATIVE_LEVELS

from rotary_batch.config import ISA_LEVELS, user_values
from rotary_batch.engine import open_engine
from rotary_batch.engine.kernels import build, cpu
from rotary_batch.engine.kernels.bindings import SIGNATURES, bind
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import CANDIDATES, FALLBACK, FORMATS, Gemm, Level, cap, select_kernel
from rotary_batch.engine.kernels.linear import FastMatmul
from rotary_batch.errors import ConfigError


def up_to(level: Level) -> frozenset[Level]:
    return frozenset(one for one in Level if one <= level)


PORTABLE, AVX2, AVX_VNNI, AVX512_BF16, AMX = Level
SHAPE = (128, 96)


# x, how the matrix is stored, rows -> the kernel at each level
@pytest.mark.parametrize(
    ("x", "stored_as", "rows", "kernels"),
    [
        ("f32", "bf16", 1, ["torch_linear_bf16", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "bf16", 5, ["torch_dequant", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "bf16", 256, ["torch_dequant", "gemm_avx2", "gemm_avx2", "gemm_avx2"]),
        ("f32", "bf16", 257, ["torch_dequant"] * 4),
        ("f32", "f32", 7, ["torch_linear"] * 4),
        ("f32", "int8", 8, ["torch_int8pack_mm", *["gemm_avx2_q8"] * 3]),
        ("f32", "int8", 9, ["torch_dequant", *["gemm_avx2_q8"] * 3]),
        ("f32", "int4", 32, ["torch_int4pack_mm", *["gemm_avx2_q8"] * 3]),
        ("f32", "int4", 4096, ["torch_dequant", *["gemm_avx2_q8"] * 3]),
        ("bf16", "bf16", 0, ["torch_linear"] * 4),
        ("bf16", "bf16", 1, ["torch_linear", "torch_linear", "gemv_avx512bf16", "gemv_avx512bf16"]),
        ("bf16", "bf16", 4, ["torch_linear", "torch_linear", "gemv_avx512bf16", "gemv_avx512bf16"]),
        ("bf16", "bf16", 5, ["torch_linear", "torch_linear", "gemm_avx512bf16", "gemm_amx"]),
        ("bf16", "bf16", 4096, ["torch_linear", "torch_linear", "gemm_avx512bf16", "gemm_amx"]),
        ("bf16", "int8", 4, ["torch_int8pack_mm", "torch_int8pack_mm", "gemm_avx512_q8", "gemm_avx512_q8"]),
        ("bf16", "int8", 5, ["torch_int8pack_mm", "torch_int8pack_mm", "gemm_avx512_q8", "gemm_amx"]),
        ("bf16", "int8", 64, ["torch_dequant", "torch_dequant", "gemm_avx512_q8", "gemm_amx"]),
        ("bf16", "int4", 1, ["torch_int4pack_mm", "torch_int4pack_mm", "gemm_avx512_q8", "gemm_avx512_q8"]),
        ("bf16", "int4", 2, ["torch_int4pack_mm", "torch_int4pack_mm", "gemm_avx512_q8", "gemm_amx"]),
        ("bf16", "int4", 33, ["torch_dequant", "torch_dequant", "gemm_avx512_q8", "gemm_amx"]),
        ("bf16", "int4:f16", 2, ["torch_dequant", "torch_dequant", "gemm_avx512_q8", "gemm_amx"]),
        ("f32", "int4:f32", 2, ["torch_dequant", *["gemm_avx2_q8"] * 3]),
        ("f32", "ggml:Q4_K", 1, ["torch_dequant", "gemm_avx2_q8", "gemm_avx2_q8", "gemm_avx2_q8"]),
        ("bf16", "ggml:Q6_K", 4, ["torch_dequant", "torch_dequant", "gemm_avx512_q8", "gemm_avx512_q8"]),
        ("bf16", "ggml:Q8_0", 5, ["torch_dequant", "torch_dequant", "gemm_avx512_q8", "gemm_amx"]),
        ("bf16", "ggml:MXFP4", 9, ["torch_dequant", "torch_dequant", "gemm_avx512_q8", "gemm_amx"]),
        ("bf16", "ggml:Q2_K", 5, ["torch_dequant", "torch_decoded", "torch_decoded", "torch_decoded"]),
        ("f32", "ggml:IQ4_XS", 1, ["torch_dequant", "torch_decoded", "torch_decoded", "torch_decoded"]),
        ("bf16", "f32", 5, ["torch_dequant"] * 4),
    ],
)
def test_the_kernel_at_each_level(x, stored_as, rows, kernels):
    gemm = Gemm(x, stored_as, is_contiguous=True, shape=(rows, *SHAPE))
    levels = [up_to(level) - {AVX_VNNI} for level in Level if level != AVX_VNNI]
    assert [select_kernel(gemm, one) for one in levels] == kernels


@pytest.mark.parametrize("stored_as", FORMATS)
@pytest.mark.parametrize("level", [AVX_VNNI, AVX512_BF16, AMX])
def test_float32_rows_are_multiplied_by_avx_vnni_where_they_are_integers(stored_as, level):
    for x in ("f32", "bf16"):
        gemm = Gemm(
            x, stored_as, is_contiguous=True, shape=(3, *SHAPE), group=32 if stored_as.startswith("int4") else 0
        )
        without = select_kernel(gemm, up_to(level) - {AVX_VNNI})
        expected = "gemm_avxvnni_q8" if without == "gemm_avx2_q8" else without
        assert select_kernel(gemm, up_to(level)) == expected


# Rows of a matrix that are not whole blocks, columns that do not fill a register, a matrix that is not contiguous.
@pytest.mark.parametrize(
    ("x", "stored_as", "shape", "is_contiguous", "kernel"),
    [
        ("bf16", "bf16", (4, 100, 96), True, "gemv_avx512bf16"),
        ("bf16", "bf16", (4, 102, 96), True, "torch_linear"),
        ("bf16", "bf16", (4, 100, 40), True, "torch_linear"),
        ("bf16", "bf16", (5, 100, 96), True, "torch_linear"),
        ("bf16", "bf16", (5, 128, 96), False, "torch_linear"),
        ("bf16", "int8", (5, 100, 96), True, "gemm_avx512_q8"),
        ("bf16", "int8", (5, 100, 80), True, "torch_int8pack_mm"),
        ("bf16", "int8", (5, 100, 100), True, "torch_dequant"),
        ("bf16", "int8", (5, 128, 96), False, "torch_dequant"),
        ("bf16", "int4", (5, 100, 96), True, "gemm_amx"),
        ("f32", "bf16", (3, 62, 96), True, "torch_linear_bf16"),
        ("f32", "bf16", (5, 62, 96), True, "torch_dequant"),
        ("f32", "bf16", (5, 64, 92), True, "torch_dequant"),
        ("f32", "int8", (5, 64, 96), False, "torch_dequant"),
        ("f32", "int4", (5, 64, 96), False, "torch_dequant"),
    ],
)
def test_torch_computes_what_no_compiled_kernel_supports(x, stored_as, shape, is_contiguous, kernel):
    assert select_kernel(Gemm(x, stored_as, is_contiguous, shape), frozenset(Level)) == kernel


# Groups of columns that a kernel cannot read go to the next one, in the end to torch, which dequantises the matrix.
@pytest.mark.parametrize(
    ("x", "stored_as", "group", "kernels"),
    [
        ("f32", "int4", 96, ["torch_dequant", "gemm_avxvnni_q8"]),
        ("f32", "int4", 48, ["torch_dequant", "gemm_avx2"]),
        ("bf16", "int4", 512, ["torch_dequant", "gemm_amx"]),
        ("bf16", "int4", 48, ["torch_dequant", "torch_dequant"]),
        ("bf16", "int4", 1024, ["torch_dequant", "gemm_avx512_q8"]),
        ("bf16", "int4", 256, ["torch_int4pack_mm", "gemm_amx"]),
        ("f32", "int8:f16", 0, ["torch_dequant", "torch_decoded"]),
        ("bf16", "fp8", 0, ["torch_dequant", "torch_decoded"]),
    ],
)
def test_the_kernel_for_columns_that_share_a_scale(x, stored_as, group, kernels):
    gemm = Gemm(x, stored_as, is_contiguous=True, shape=(5, *SHAPE), group=group)
    assert [select_kernel(gemm, levels) for levels in (up_to(PORTABLE), frozenset(Level))] == kernels


def test_a_level_that_is_left_out_has_the_next_one_below_in_its_place():
    gemms = [Gemm("bf16", "bf16", is_contiguous=True, shape=(rows, *SHAPE)) for rows in (4, 5)]
    for left_out, kernels in (
        (AMX, ["gemv_avx512bf16", "gemm_avx512bf16"]),
        (AVX512_BF16, ["gemm_amx", "gemm_amx"]),
        (AVX2, ["gemv_avx512bf16", "gemm_amx"]),
    ):
        assert [select_kernel(gemm, frozenset(Level) - {left_out}) for gemm in gemms] == kernels


def test_every_candidate_is_a_method_and_every_c_function_belongs_to_one():
    kernels = {candidate.kernel for candidate in CANDIDATES} | {FALLBACK}
    for kernel in kernels:
        assert hasattr(FastMatmul if kernel.startswith("torch_") else CpuKernels, kernel)
    compiled = {kernel for kernel in kernels if not kernel.startswith("torch_")}
    q8 = {
        f"{part}_{level}_q8" for part in ("quantise", "experts", "combine") for level in ("avx2", "avxvnni", "avx512")
    }
    products = [name for name in SIGNATURES.keys() - q8 if not name.startswith(("decode_", "attention_", "delta_"))]
    assert {name.rsplit("_", 1)[0] for name in products} == compiled


EXPORTED = r"^void (\w+(?:\([\w, ]+\))?)\(([^)]*)\) \{"
# What the macros around names make of them, in files that are compiled for several levels.
COMPILED_OFTEN = {
    ("gemm_bf16.c", "EXPORTED"): ("gemm_avx512bf16_{}", "gemm_amx_{}"),
    ("gemm_q8.c", "EXPORTED"): ("{}_avx2_q8", "{}_avxvnni_q8", "{}_avx512_q8"),
    ("gemm_q8.c", "EXPORTED_FOR"): ("{}_avx2_q8_{}", "{}_avxvnni_q8_{}", "{}_avx512_q8_{}"),
}


def test_signatures_are_those_of_the_c_functions():
    """A parameter in another place would be read as another array."""
    exported = {}
    texts = [(path, path.read_text()) for path in build.SOURCES.glob("*.c")]
    found = [(path, *groups) for path, text in texts for groups in re.findall(EXPORTED, text, re.MULTILINE)]
    for path, name, declarations in found:
        parameters = [declaration.split() for declaration in declarations.split(",")]
        names = tuple(words[-1].lstrip("*") for words in parameters)
        types = ["pointer" if words[-1].startswith("*") else words[-2] for words in parameters]
        macro, _, argument = name.rstrip(")").partition("(")
        functions = (
            [form.format(*argument.split(", ")) for form in COMPILED_OFTEN[path.name, macro]] if argument else [name]
        )
        exported |= dict.fromkeys(functions, (names, types))
    assert exported == {
        name: (
            signature.names,
            [
                kind
                for kind, names in (
                    ("pointer", signature.pointers),
                    ("long", signature.sizes),
                    ("float", signature.floats),
                    ("int", ["threads"]),
                )
                for _ in names
            ],
        )
        for name, signature in SIGNATURES.items()
    }


def test_a_c_function_is_called_by_keyword_and_refuses_what_it_does_not_take():
    calls = []

    def function(*arguments):
        calls.append(arguments)

    call = bind({"gemm_avx2_bf16": function}, "gemm_avx2_bf16")
    sizes = {"K": 6, "M": 4, "N": 5}
    call(out=3, weights=1, x=2, **sizes, threads=7)
    assert calls == [(1, 2, 3, 4, 5, 6, 7)]
    for wrong in ({"x": 2}, {"x": 2, "out": 3, "group": 8}):
        with pytest.raises(TypeError, match="gemm_avx2_bf16 takes"):
            call(weights=1, **wrong, **sizes, threads=7)
    assert len(calls) == 1


def test_the_levels_are_those_that_settings_name():
    assert tuple(level.label for level in Level) == ISA_LEVELS
    assert [cap({"ROTARY_BATCH_MAX_ISA": label}) for label in ISA_LEVELS] == list(Level)
    assert cap({}) == AMX


def test_the_cap_is_no_unknown_key_and_a_wrong_one_is_named():
    def settings(value):
        environment = {"ROTARY_BATCH_MAX_ISA": value, "ROTARY_BATCH_JOB": "review"}
        return user_values(flags={}, environment=environment, folders=[], config=None)

    assert settings("avx2") == {"job": ("review", "ROTARY_BATCH_JOB")}
    for wrong in ("avx", "", "AVX2"):
        message = f"ROTARY_BATCH_MAX_ISA: '{wrong}' is not one of portable, avx2, avx_vnni, avx512_bf16, amx"
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
            has_bf16 = cpu.torch_has_bf16()
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
