"""What only a CUDA device can show: its products, its streams, its memory that runs out."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matrices import file_matrices, on_device

from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.attention.exact import ExactAttention
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.attention.varlen import VarlenAttention, supports_varlen
from rotary_batch.engine.kernels.cuda import HAS_TRITON
from rotary_batch.engine.kernels.linear import FastMatmul
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import dequantise, matrix_from, quantise
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.offload import tiers
from rotary_batch.engine.packs.pack import pack
from rotary_batch.model.manifest import Manifest
from rotary_batch.testing import drain, write_tiny_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CUDA = torch.device("cuda")
FILE_MATRICES = file_matrices(131, 512)
WIDE = {"num_hidden_layers": 4, "num_local_experts": 8, "hidden_size": 128, "intermediate_size": 192}


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> dict[str, Path]:
    source = write_tiny_checkpoint(tmp_path_factory.mktemp("hf"), seed=2, **WIDE)
    folders = {}
    for experts in ("bf16", "int8", "int4"):
        folders[experts] = tmp_path_factory.mktemp(experts)
        pack(source, folders[experts], experts=experts, dense="int8" if experts == "int4" else "bf16")
    return folders


def requests(count: int = 12) -> list[Request]:
    prompts = [tuple((7 * n + 3 * i) % 250 for i in range(5 + 17 * n)) for n in range(count)]
    return [Request(request_id=n, prompt_ids=prompt, max_new_tokens=8 + n) for n, prompt in enumerate(prompts)]


@pytest.mark.parametrize("rows", [1, 7, 33, 200])
@pytest.mark.parametrize(("out", "inner"), [(64, 128), (100, 96), (2200, 256), (4096, 14336)])
@pytest.mark.parametrize("stored_as", ["bf16", "int8", "int4"])
def test_products_are_those_of_the_reference(stored_as, out, inner, rows):
    generator = torch.Generator().manual_seed(rows)
    parts = quantise(torch.randn(out, inner, generator=generator).bfloat16(), stored_as)
    x = torch.randn(rows, inner, generator=generator).bfloat16()
    expected = x.double() @ dequantise(matrix_from(parts, out, stored_as), torch.empty(out, inner)).double().T
    on_device = matrix_from({name: part.to(CUDA) for name, part in parts.items()}, out, stored_as)
    product = FastMatmul(CUDA).linear(x.to(CUDA), on_device).cpu().double()
    assert product.shape == expected.shape
    assert (product - expected).norm() <= 0.01 * expected.norm()


@pytest.mark.parametrize("name", FILE_MATRICES)
def test_formats_of_model_files_multiply_and_look_up_as_on_the_processor(name):
    matrix = FILE_MATRICES[name]
    weights = dequantise(matrix, torch.empty(131, 512))
    on_cuda, chosen = on_device(matrix, CUDA), torch.tensor([3, 3, 130, 64, 35])
    assert torch.equal(Numerics("exact", CUDA).embed(on_cuda, chosen.to(CUDA)).cpu(), weights[chosen])
    for rows in (1, 7, 200):
        x = torch.randn(rows, 512, generator=torch.Generator().manual_seed(rows)).bfloat16()
        product, expected = FastMatmul(CUDA).linear(x.to(CUDA), on_cuda).cpu().double(), x.double() @ weights.double().T
        assert (product.shape, product.isfinite().all()) == (expected.shape, True)
        assert (product - expected).norm() <= 0.01 * expected.norm()


@pytest.mark.parametrize("kv", ["bf16", "int8"])
@pytest.mark.parametrize("experts", ["bf16", "int8", "int4"])
def test_logits_at_speed_are_those_of_the_processor_within_bf16(packs, experts, kv):
    prompt = [(11 * i) % 250 for i in range(150)]
    logits = []
    for options in ({"numerics": "exact"}, {"numerics": "fast", "device": "cuda"}):
        engine = open_engine(packs[experts], kv=kv, ring_slots=3, resident_share=0.25, prefill_span=40, **options)
        logits.append(engine.logits(prompt).cpu().double())
        engine.close()
    apart = (logits[0] - logits[1]).norm(dim=1) / logits[0].norm(dim=1)
    assert apart.median() <= 0.12, "a row whose routers chose otherwise may be far off; on a CPU it is 0.03 to 0.08"


@pytest.mark.parametrize("window", [None, 9])
def test_attention_of_every_kind_is_exact_attention_within_bf16(packs, window, mixed_segments):
    geometry = Manifest.load(packs["bf16"]).geometry
    generator = torch.Generator().manual_seed(1)
    shape = (400, geometry.num_kv_heads, geometry.head_dim)
    keys, values = (torch.randn(shape, generator=generator).bfloat16() for _ in "kv")
    queries = torch.randn(19, geometry.num_heads, geometry.head_dim, generator=generator).bfloat16()
    geometry = replace(geometry, sliding_window=window)
    kinds = [ExactAttention(geometry, torch.device("cpu")), GatherAttention(geometry, torch.bfloat16, CUDA)]
    kinds += [VarlenAttention(CUDA)] if supports_varlen(geometry, CUDA) else []
    kinds += [TritonAttention(geometry, torch.bfloat16, CUDA)] if HAS_TRITON else []
    outputs = []
    for kind in kinds:
        exact = isinstance(kind, ExactAttention)
        device, dtype = (torch.device("cpu"), torch.float32) if exact else (CUDA, torch.bfloat16)
        kv = KvArena(geometry, 400, "bf16", dtype, device)
        kv.write(0, torch.arange(400, device=device), keys.to(device, dtype), values.to(device, dtype))
        kind.plan(mixed_segments)
        outputs.append(kind.attend(0, queries.to(device, dtype), kv).float().cpu())
    assert all((one - outputs[0]).abs().max() <= 0.03 for one in outputs[1:])


def test_slabs_that_pass_through_staging_give_the_same_bits(packs, monkeypatch):
    results, names = [], []
    for locks in (True, False):
        if not locks:
            monkeypatch.setattr(tiers, "page_lock", lambda _: False)
        for tier in ("ram", "disk"):
            engine = open_engine(
                packs["int4"], numerics="exact", device="cuda", ring_slots=2, resident_share=0.2, tier=tier
            )
            results.append(drain(engine, requests()))
            names.append(engine.tier_name)
            engine.close()
    assert all(one == results[0] for one in results)
    assert names[0] == "host (pinned arena)"
    assert names[2] == "host (pageable, through a pinned staging ring)"


def test_memory_that_really_runs_out_costs_rows_and_no_token(packs):
    todo = [
        Request(request_id=n, prompt_ids=tuple((n + i) % 250 for i in range(900)), max_new_tokens=5) for n in range(24)
    ]
    engine = open_engine(packs["bf16"], numerics="exact", device="cuda", max_batch=24)
    expected = drain(engine, todo)
    engine.memory_plan = engine.memory_plan._replace(prefill_tokens=24 * 900)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 24 * 2**20) / total)
    try:
        tokens = drain(engine, todo)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        engine.close()
    assert tokens == expected
    assert engine.memory_plan.prefill_tokens < 24 * 900, "it did run out"


@pytest.mark.parametrize(("residents", "waits"), [(0.2, (3, 7)), (1.0, (0, 0))])
def test_the_host_waits_for_the_device_once_a_layer(residents, waits, tmp_path):
    """Everything else is launched without waiting: each layer costs one synchronisation, if it is not all resident."""
    synchronisations = []
    for layers in (3, 7):
        source = write_tiny_checkpoint(tmp_path / f"hf{layers}", seed=2, **{**WIDE, "num_hidden_layers": layers})
        folder = tmp_path / f"pack{layers}"
        pack(source, folder, experts="int4", dense="int8")
        engine = open_engine(
            folder, numerics="fast", device="cuda", ring_slots=3, resident_share=residents, kv="int8", draft_tokens=0
        )
        engine.stop_ids = frozenset()
        for request in requests(8):
            engine.admit(request)
        for _ in range(3):
            engine.step()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                engine.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        synchronisations.append(
            Counter(Path(w.filename).name for w in caught if "called a synchronizing" in str(w.message))
        )
        engine.close()
    assert tuple(counts.pop("moe.py", 0) for counts in synchronisations) == waits, synchronisations
    assert synchronisations[0] == synchronisations[1], "the rest is for all layers together"


def test_a_slab_is_used_after_it_came(packs):
    engine = open_engine(packs["bf16"], numerics="fast", device="cuda", ring_slots=3, resident_share=0.0, timeline=True)
    drain(engine, requests())
    spans, totals = engine.trace.timeline, engine.trace.totals()
    engine.close()
    copies = [span for span in spans if span.kind == "copy"]
    assert {span.kind for span in spans} >= {"copy", "attention", "compute", "stall"}
    assert totals["bytes_moved"] == len(copies) * engine.footprint.slab_nbytes
    assert totals["bytes_to_host"] == 0
    tick_s = 5e-6  # what the clock of events tells apart
    for use in (span for span in spans if span.kind == "compute"):
        came = [copy.end_s for copy in copies if copy.label == use.label and copy.start_s < use.start_s]
        assert came, f"{use.label} was used before it came"
        assert max(came) <= use.start_s + tick_s
