"""Experts of a layer in a few launches are those that are computed one by one: on CUDA, else in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotary_batch.engine.kernels.cuda import HAS_TRITON, TRITON_TYPES
from rotary_batch.engine.kernels.grouped import GroupedProducts, HeldExperts, Rows, grouped_layout, tile_rows
from rotary_batch.engine.kernels.matrices import Matrix, num_columns, num_rows
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import dequantise
from rotary_batch.engine.measuring.grouped import GroupedRate, grouped_rate
from rotary_batch.engine.moe import Dispatch, feed_forward
from rotary_batch.engine.offload.slab import Slab, slab_views
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import ORIGINAL, Manifest
from rotary_batch.model.shapes import SHAPES
from rotary_batch.model.slabs import expert_layout
from tests.engine.stored_models import random_slab

INTERPRETED = not torch.cuda.is_available()
pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="needs Triton, which the dev extra installs on Linux x86-64"),
    pytest.mark.filterwarnings("ignore:overflow encountered in exp"),  # numpy's, in the interpreter: the gate is 0 then
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16  # the interpreter cannot multiply bf16
WITHIN = 1e-5 if INTERPRETED else 0.02
TINY = replace(SHAPES["small"], hidden_size=128, intermediate_size=64, num_experts=5, top_k=2, num_layers=1)
WIDE = replace(TINY, hidden_size=256, intermediate_size=256)  # blocks of 256 columns
CLAMPED = replace(TINY, expert_bias=True, swiglu_limit=0.5)
FORMATS = {
    "int4": TINY,
    "int4:32:f16": TINY,
    "int4:64:f32": replace(TINY, hidden_size=192),
    "bf16": replace(TINY, hidden_size=100, intermediate_size=40),  # no whole tiles, no whole blocks
    **{f"ggml:{name}": WIDE for name in (*TRITON_TYPES, "F16", "F32")},
}


def manifest_of(geometry: Geometry, stored: dict[str, str]) -> Manifest:
    return Manifest(
        name="one layer", geometry=geometry, experts=ORIGINAL, layer_formats={0: stored}, slabs={},
        dense_sha256="", tokenizer_sha256="", context_tokens=1,
    )  # fmt: skip


def held(geometry: Geometry, stored: dict[str, str], slots: list[int]) -> HeldExperts:
    """Slot `slots[n]` has expert n; the others have something else."""
    nbytes = expert_layout(geometry, stored).nbytes
    memory = torch.full((max(slots) + 2, nbytes), 255, dtype=torch.uint8)
    for expert, slot in enumerate(slots):
        memory[slot] = random_slab(geometry, stored, expert)
    pairs = torch.tensor(list(enumerate(slots)), dtype=torch.int32)
    return HeldExperts(memory.flatten().to(DEVICE), nbytes, pairs.to(DEVICE))


def plain(matrix: Matrix) -> torch.Tensor:
    return dequantise(matrix, torch.empty(num_rows(matrix), num_columns(matrix)))


def one_by_one(x: torch.Tensor, dispatch: Dispatch, manifest: Manifest, experts: HeldExperts) -> torch.Tensor:
    """In float32, by dequantised weights."""
    numerics, geometry = Numerics("exact", torch.device("cpu")), manifest.geometry
    out = torch.zeros(len(x), geometry.hidden_size)
    for expert, slot in experts.held.tolist():
        memory = experts.memory.cpu()[slot * experts.slot_nbytes : (slot + 1) * experts.slot_nbytes]
        slab = slab_views(memory, manifest, 0)
        slab = Slab(tuple(plain(one) for one in slab.gate_up), plain(slab.down), slab.gate_up_bias, slab.down_bias)
        for place in range(*dispatch.offsets[expert : expert + 2].tolist()):
            row = int(dispatch.rows[place])
            choice = int((dispatch.assignments[row] == place).nonzero())
            out[row] += (
                feed_forward(x[row : row + 1].float(), slab, geometry, numerics)[0] * dispatch.weights[row, choice]
            )
    return out


def routed(count: int, geometry: Geometry, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and chosen experts [count, K]: at random, all to the same experts, or none to the last one."""
    generator = torch.Generator().manual_seed(count)
    scores = torch.rand(count, geometry.num_experts, generator=generator)
    if kind == "crowded":
        scores[:, 1:3] += 1
    elif kind == "missing":
        scores[:, -1] = -1
    weights, chosen = scores.topk(geometry.top_k)
    return weights, chosen


def grouped(
    x: torch.Tensor, dispatch: Dispatch, manifest: Manifest, experts: HeldExperts, parts: list[slice]
) -> torch.Tensor:
    layout = grouped_layout(manifest.geometry, manifest.stored(0), manifest.layout(0))
    assert layout is not None
    on_device = [part.to(DEVICE) for part in (x, *dispatch)]
    products = GroupedProducts(Rows(*on_device), layout)
    for part in parts:
        products.add(experts._replace(held=experts.held[part]))
    return products.combine().cpu().float()


def check(geometry: Geometry, stored: dict[str, str], count: int, kind: str = "random", parts=(slice(None),)) -> None:
    manifest, experts = manifest_of(geometry, stored), held(geometry, stored, [3, 0, 7, 1, 4])
    weights, chosen = routed(count, geometry, kind)
    dispatch = Dispatch.sort(weights, chosen, geometry.num_experts)
    x = torch.randn(count, geometry.hidden_size, generator=torch.Generator().manual_seed(7)).to(DTYPE)
    expected = one_by_one(x, dispatch, manifest, experts)
    found = grouped(x, dispatch, manifest, experts, list(parts))
    assert found.isfinite().all()
    assert (found - expected).norm() <= WITHIN * expected.norm()


@pytest.mark.parametrize("stored_as", FORMATS)
def test_every_format(stored_as):
    check(FORMATS[stored_as], {"gate_up": stored_as, "down": stored_as}, 9)


@pytest.mark.parametrize("kind", ["random", "crowded", "missing"])
@pytest.mark.parametrize("count", [1, 2, 30, 200])
def test_any_routing(count, kind):
    """One row, experts without rows, and more rows for one expert than a program multiplies at once."""
    check(TINY, {"gate_up": "int4", "down": "int4"}, count, kind)


@pytest.mark.parametrize("parts", [[slice(0, 2), slice(2, 5)], [slice(n, n + 1) for n in (4, 0, 2, 1, 3)]])
def test_experts_come_in_any_order_and_number(parts):
    check(TINY, {"gate_up": "int4", "down": "int4"}, 20, parts=parts)


@pytest.mark.parametrize("stored_as", ["int4", "bf16", "ggml:MXFP4"])
def test_biases_and_limits(stored_as):
    check(CLAMPED, {"gate_up": stored_as, "down": stored_as}, 20)


def test_gate_up_and_down_in_formats_of_their_own():
    check(WIDE, {"gate": "ggml:Q4_K", "up": "ggml:Q4_K", "down": "ggml:Q6_K"}, 20)
    check(WIDE, {"gate_up": "int4:32:f16", "down": "ggml:Q8_0"}, 20)


def test_columns_are_split_where_programs_would_be_few():
    """One row of one expert, [128, 4096]: the parts are added in float32."""
    check(replace(TINY, intermediate_size=2048, num_experts=5, top_k=1), {"gate_up": "int4", "down": "int4"}, 1)


@pytest.mark.parametrize(
    "stored",
    [
        {"gate_up": "int8", "down": "int4"},
        {"gate_up": "int4", "down": "int4:64:f16:ordered"},
        {"gate": "ggml:Q4_K", "up": "ggml:Q6_K", "down": "ggml:Q4_K"},
        {"gate_up": "ggml:Q5_K", "down": "ggml:Q5_K"},
        {"gate_up": "fp8:1x0", "down": "bf16"},
    ],
)
def test_other_formats_are_computed_one_by_one(stored):
    assert grouped_layout(WIDE, stored, expert_layout(WIDE, stored)) is None


def test_gates_that_share_a_block_with_what_they_multiply_are_computed_one_by_one():
    geometry, stored = replace(TINY, intermediate_size=96), {"gate_up": "int4", "down": "int4"}
    assert grouped_layout(geometry, stored, expert_layout(geometry, stored)) is None


def test_tiles_have_as_many_rows_as_experts_have():
    assert [tile_rows(mean) for mean in (0.1, 16, 17, 64, 65, 5000)] == [16, 16, 32, 64, 128, 128]


@pytest.mark.parametrize("stored_as", ["int4", "bf16", "ggml:MXFP4"])
def test_rates_of_experts_in_groups_are_measured(stored_as):
    """In seconds per weight; a format without kernels has none, and on a CPU no format has."""
    rate = GroupedRate(stored_as, DEVICE, DTYPE, replace(TINY, num_experts=2))
    assert rate.is_possible
    assert 0 < rate.weight_s(3, rounds=1) < 1
    assert not GroupedRate("int8", DEVICE, DTYPE, TINY).is_possible
    assert grouped_rate(stored_as, torch.device("cpu")) is None
