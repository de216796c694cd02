"""What exact attention computes for a sequence, whatever the others of the batch are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.engine.attention import exact
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.exact import KV_TILE, ExactAttention
from rotary_batch.engine.attention.exact_cpu import ExactCpuAttention
from rotary_batch.engine.attention.select import attention_for
from rotary_batch.engine.kernels.cpu import default
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.manifest import Manifest

CPU = torch.device("cpu")
GEOMETRY = Manifest.load(EMBEDDED).geometry
CONTEXTS = (1, 63, 64, 65, 130, 129, 64, 700)


@pytest.fixture
def step():
    """(decode rows of sequences of all lengths and a prompt, their queries, the KV cache)."""
    segments, start = [], 0
    for row, tokens in enumerate(CONTEXTS):
        segments.append(QuerySegment(row, 1, tokens - 1, start))
        start += tokens
    segments.append(QuerySegment(len(CONTEXTS), 200, 0, start))
    generator = torch.Generator().manual_seed(0)
    kv = KvArena(GEOMETRY, start + 200, "bf16", torch.float32, CPU)
    kv.write(
        0,
        torch.arange(start + 200),
        *(torch.randn(start + 200, GEOMETRY.num_kv_heads, GEOMETRY.head_dim, generator=generator) for _ in "kv"),
    )
    queries = torch.randn(len(CONTEXTS) + 200, GEOMETRY.num_heads, GEOMETRY.head_dim, generator=generator)
    return segments, queries, kv


ATTENTIONS = {"torch": lambda: ExactAttention(GEOMETRY, CPU), "kernel": lambda: ExactCpuAttention(GEOMETRY, default())}
needs_kernel = pytest.mark.skipif(not default().supports_head_dim(GEOMETRY.head_dim), reason="no kernel here")
EACH = pytest.mark.parametrize("kind", ["torch", pytest.param("kernel", marks=needs_kernel)])


def attended(attention, segments, queries, kv):
    attention.plan(segments)
    return attention.attend(0, queries, kv)


@EACH
def test_a_sequence_has_the_same_bits_alone_as_beside_longer_and_shorter_ones(kind, step):
    segments, queries, kv = step
    attention = ATTENTIONS[kind]()
    together = attended(attention, segments, queries, kv)
    for segment in segments:
        rows = slice(segment.first_row, segment.first_row + segment.num_rows)
        assert torch.equal(attended(attention, [segment._replace(first_row=0)], queries[rows], kv), together[rows])


@EACH
@pytest.mark.parametrize("width", [1, 3, 64, 199])
def test_a_prompt_has_the_same_bits_in_spans_of_any_width(kind, width, step):
    segments, queries, kv = step
    attention, prompt = ATTENTIONS[kind](), segments[-1]
    rows = queries[prompt.first_row :]
    whole = attended(attention, [prompt._replace(first_row=0)], rows, kv)
    spans = [
        attended(attention, [QuerySegment(0, len(part), begin, prompt.kv_start)], part, kv)
        for begin, part in zip(range(0, len(rows), width), rows.split(width), strict=True)
    ]
    assert torch.equal(torch.cat(spans), whole)


@EACH
@pytest.mark.parametrize("prefix", [1, 63, 64, 65, 128, 150])
def test_a_shared_prefix_of_any_length_changes_no_bit(kind, prefix, step):
    """Two sequences that read the first tokens from one place, versus each with all of its own."""
    segments, queries, kv = step
    attention, tokens = ATTENTIONS[kind](), 160
    keys, values = (part[:tokens].clone() for part in kv.layer_views(0))
    apart = KvArena(GEOMETRY, 1000, "bf16", torch.float32, CPU)
    apart.write(0, torch.arange(tokens), keys, values)
    shared = KvArena(GEOMETRY, 1000, "bf16", torch.float32, CPU)
    shared.write(0, torch.arange(500, 500 + prefix), keys[:prefix], values[:prefix])
    for start in (0, 200):
        shared.write(0, torch.arange(start, start + tokens - prefix), keys[prefix:], values[prefix:])
    whole = [QuerySegment(row, 1, tokens - 1, 0) for row in range(2)]
    cut = [QuerySegment(row, 1, tokens - 1, 200 * row, 500, prefix) for row in range(2)]
    found = [attended(attention, one, queries[:2], kv) for one, kv in ((whole, apart), (cut, shared))]
    assert torch.equal(*found)


@needs_kernel
def test_the_kernel_computes_what_torch_does_on_any_number_of_threads(step):
    segments, queries, kv = step
    found = {kind: attended(make(), segments, queries, kv) for kind, make in ATTENTIONS.items()}
    torch.testing.assert_close(found["kernel"], found["torch"], atol=2e-6, rtol=1e-5)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(attended(ATTENTIONS["kernel"](), segments, queries, kv), found["kernel"])
    finally:
        torch.set_num_threads(before)


@needs_kernel
def test_the_kernel_is_chosen_for_what_it_reads():
    numerics = Numerics("exact", CPU, default())
    plain = KvArena(GEOMETRY, 64, "bf16", torch.float32, CPU)
    in_8_bits = KvArena(GEOMETRY, 64, "int8", torch.float32, CPU)
    kinds = [
        type(attention_for(geometry, numerics, kv)).__name__
        for geometry, kv in (
            (GEOMETRY, plain),
            (GEOMETRY, in_8_bits),
            (replace(GEOMETRY, attention_sinks=True), plain),
            (replace(GEOMETRY, head_dim=24), plain),
            (replace(GEOMETRY, num_heads=71, num_kv_heads=1), plain),  # Falcon 7B: more than a block has rows
        )
    ]
    assert kinds == ["ExactCpuAttention", *["ExactAttention"] * 4]


def test_no_block_reads_a_tile_beyond_its_context(step, monkeypatch):
    """One long sequence once made all others read as many tiles: a step of 0.85 s took 1.4 s."""
    segments, queries, kv = step
    counted, gather = [], exact._gather
    monkeypatch.setattr(
        exact, "_gather", lambda kv, layer, indices: counted.append(len(indices)) or gather(kv, layer, indices)
    )
    attention = ExactAttention(GEOMETRY, CPU)
    attention.plan(segments)
    attention.attend(0, queries, kv)
    width = 16 // (GEOMETRY.num_heads // GEOMETRY.num_kv_heads)
    contexts = [*CONTEXTS, *range(width, 200 + 1, width)]
    assert sum(counted) == sum(-(-tokens // KV_TILE) for tokens in contexts)
