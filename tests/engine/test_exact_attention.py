"""What exact attention computes for a sequence, whatever the others of the batch are."""

from __future__ import annotations

import pytest
import torch

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.engine.attention import exact
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.exact import KV_TILE, ExactAttention
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


def test_a_sequence_has_the_same_bits_alone_as_beside_longer_and_shorter_ones(step):
    segments, queries, kv = step
    attention = ExactAttention(GEOMETRY, CPU)
    attention.plan(segments)
    together = attention.attend(0, queries, kv)
    for segment in segments:
        rows = slice(segment.first_row, segment.first_row + segment.num_rows)
        attention.plan([segment._replace(first_row=0)])
        assert torch.equal(attention.attend(0, queries[rows], kv), together[rows])


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
