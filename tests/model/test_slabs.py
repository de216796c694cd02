"""How matrices are stored: the strings that say it, the tensors of each format, and their places in a slab."""

from __future__ import annotations

import pytest

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.errors import ModelError
from rotary_batch.model.ggml_types import BLOCK_TYPES
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.slabs import (
    StoredAs,
    fp8_block,
    matrix_parts,
    parse_stored_as,
    slab_layout,
    stored_nbytes,
    uniform_layout,
)


@pytest.mark.parametrize(
    ("stored_as", "parsed"),
    [
        ("bf16", StoredAs("bf16")),
        ("int8", StoredAs("int8", 0, "F32")),
        ("int4", StoredAs("int4", 0, "BF16")),
        ("int4:96:f16", StoredAs("int4", 96, "F16")),
        ("int8:32:bf16", StoredAs("int8", 32, "BF16")),
        ("fp8:128x64", StoredAs("fp8", 0, "F32", (128, 64))),
        ("fp8:0x0", StoredAs("fp8", 0, "F32", (0, 0))),
        *[(f"ggml:{name}", StoredAs("ggml", type_name=name)) for name in BLOCK_TYPES],
    ],
)
def test_every_format_has_a_name(stored_as, parsed):
    assert parse_stored_as(stored_as) == parsed


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "int5",
        "BF16",
        "bf16:32",
        "int4:",
        "int4:32",
        "int4:0:f16",
        "int4:032:f16",
        "int4:-32:f16",
        "int4:32:f64",
        "int4:32:f16:",
        "int4:32:f16\n",
        "int4:٣٢:f16",
        "int4:99999999:f16",
        "int8:32:int8",
        "fp8",
        "fp8:128",
        "fp8:128x",
        "fp8:12800000x1",
        "fp8:128x128x1",
        "ggml",
        "ggml:",
        "ggml:q4_k",
        "ggml:Q4_K:1",
        "Q4_K",
    ],
)
def test_a_name_that_is_none_is_refused_and_shown(wrong):
    with pytest.raises(ModelError, match=r"^stored as .*; this version has bf16, int8, int4, int4:GROUP:DTYPE"):
        parse_stored_as(wrong)


def test_a_long_name_is_not_repeated():
    with pytest.raises(ModelError, match=r"^stored as a string of 1,000,000; this version has"):
        parse_stored_as("x" * 10**6)


@pytest.mark.parametrize(
    ("stored_as", "parts"),
    [
        ("bf16", [("", "F16", (100, 768))]),
        ("int8", [("", "I8", (100, 768)), (".scale", "F32", (100,))]),
        ("int4", [("", "U8", (2, 768, 32)), (".scale_zero", "BF16", (6, 128, 2))]),
        ("int4:32:f32", [("", "U8", (2, 768, 32)), (".scale_zero", "F32", (24, 128, 2))]),
        ("int8:768:f16", [("", "I8", (100, 768)), (".scale", "F16", (100, 1))]),
        ("fp8:64x500", [("", "F8_E4M3", (100, 768)), (".scale", "F32", (2, 2))]),
        ("fp8:1x0", [("", "F8_E4M3", (100, 768)), (".scale", "F32", (100, 1))]),
        ("fp8:0x0", [("", "F8_E4M3", (100, 768)), (".scale", "F32", (1, 1))]),
        ("ggml:Q6_K", [("", "U8", (100, 3 * 210))]),
        ("ggml:MXFP4", [("", "U8", (100, 24 * 17))]),
        ("ggml:F32", [("", "U8", (100, 4 * 768))]),
    ],
)
def test_the_tensors_of_a_matrix(stored_as, parts):
    """Of 100 rows and 768 columns, in a checkpoint of float16."""
    assert matrix_parts(stored_as, 100, 768, "F16") == parts


def test_the_sizes_of_formats():
    """Bits of a weight, by the tables of the formats: GGUF's blocks, a pair of 2 x 16 bits for 128 weights of int4."""
    kinds = ("bf16", "int4", "int4:128:f32", "ggml:Q4_K", "ggml:Q6_K", "ggml:MXFP4", "fp8:0x0")
    bits = [8 * stored_nbytes(kind, 1024, 1024) / 2**20 for kind in kinds]
    assert bits == [16, 4.25, 4.5, 4.5, 6.5625, 4.25, 8 + 32 / 2**20]


def test_blocks_of_fp8_are_all_rows_or_columns_where_the_name_says_0():
    named = [fp8_block(parse_stored_as(name), 300, 200) for name in ("fp8:128x64", "fp8:1x0", "fp8:0x0")]
    assert named == [(128, 64), (1, 200), (300, 200)]


@pytest.mark.parametrize(
    ("stored_as", "message"),
    [
        ("int4", "rows of 2900 numbers cannot be cut into groups of 32; use int8"),
        ("int4:64:f16", "int4: rows of 2900 numbers cannot be cut into groups of 64"),
        ("int8:32:f16", "int8: rows of 2900 numbers cannot be cut into groups of 32"),
        ("ggml:Q4_K", "Q4_K: rows of 2900 numbers cannot be cut into groups of 256"),
        ("ggml:Q8_0", "Q8_0: rows of 2900 numbers cannot be cut into groups of 32"),
    ],
)
def test_rows_that_are_no_whole_groups_or_blocks_are_refused_with_the_name_of_the_matrix(stored_as, message):
    with pytest.raises(ModelError, match=f"^down: .*{message}"):
        slab_layout({"gate": (10, 64), "down": (10, 2900)}, {"gate": "bf16", "down": stored_as}, "BF16", {})


def test_a_slab_has_its_matrices_in_order_each_in_its_own_format_and_then_the_biases():
    shapes = {"gate": (96, 256), "up": (96, 256), "down": (256, 96)}
    stored = {"gate": "ggml:Q4_K", "up": "int4:64:f16", "down": "ggml:Q8_0"}
    layout = slab_layout(shapes, stored, "BF16", {"gate_up": 192, "down": 256})
    assert {name: tuple(part) for name, part in layout.parts.items()} == {
        "gate": ("U8", (96, 144), 0, 13_824),
        "up": ("U8", (2, 256, 32), 13_824, 16_384),
        "up.scale_zero": ("F16", (4, 128, 2), 30_208, 2_048),
        "down": ("U8", (256, 102), 32_256, 26_112),
        "gate_up.bias": ("F32", (192,), 58_368, 768),
        "down.bias": ("F32", (256,), 59_136, 1_024),
    }
    assert layout.nbytes == 61_440


def test_packs_of_earlier_versions_are_laid_out_as_they_were():
    """Every offset of the embedded model's slabs in each format that we quantise to."""
    geometry = Manifest.load(EMBEDDED).geometry
    layouts = {experts: uniform_layout(geometry, experts) for experts in ("bf16", "int8", "int4")}
    assert {experts: layout.nbytes for experts, layout in layouts.items()} == {
        "bf16": 344_064,
        "int8": 176_128,
        "int4": 98_304,
    }
    assert {
        experts: {name: tuple(part) for name, part in layout.parts.items()} for experts, layout in layouts.items()
    } == {
        "bf16": {"gate_up": ("BF16", (448, 256), 0, 229_376), "down": ("BF16", (256, 224), 229_376, 114_688)},
        "int8": {
            "gate_up": ("I8", (448, 256), 0, 114_688),
            "gate_up.scale": ("F32", (448,), 114_688, 1_792),
            "down": ("I8", (256, 224), 116_480, 57_344),
            "down.scale": ("F32", (256,), 173_824, 1_024),
        },
        "int4": {
            "gate_up": ("U8", (7, 256, 32), 0, 57_344),
            "gate_up.scale_zero": ("BF16", (2, 448, 2), 57_344, 3_584),
            "down": ("U8", (4, 224, 32), 60_928, 28_672),
            "down.scale_zero": ("BF16", (7, 256, 2), 89_600, 7_168),
        },
    }
