"""Attention through torch's variable-length kernel, on any machine: torch operators stand in for the kernel."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.exact import ExactAttention
from rotary_batch.engine.attention.varlen import VarlenAttention, supports_varlen
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.manifest import Manifest

varlen = pytest.importorskip("torch.nn.attention.varlen")
CPU = torch.device("cpu")
GEOMETRY = replace(Manifest.load(EMBEDDED).geometry, num_heads=8, num_kv_heads=2, num_layers=1, sliding_window=None)


def kernel(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux, window_size, enable_gqa, seqused_k):
    """`varlen_attn`, its log-sum-exp [heads, T] as the kernel gives it."""
    assert enable_gqa
    assert return_aux.lse
    out, lse = torch.empty_like(q), torch.empty(q.shape[1], len(q))
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1).float() for part in (k, v))
    for n, used in enumerate(seqused_k.tolist()):
        rows, start = slice(*cu_seq_q[n : n + 2].tolist()), int(cu_seq_k[n])
        count = rows.stop - rows.start
        assert count <= max_q
        assert used <= max_k
        scores = torch.einsum("qhd,khd->hqk", q[rows].float(), k[start : start + used]) * q.shape[-1] ** -0.5
        if window_size == (-1, 0):
            hidden = torch.arange(used) > torch.arange(count)[:, None] + used - count
            scores = scores.masked_fill(hidden, float("-inf"))
        lse[:, rows] = scores.logsumexp(-1)
        out[rows] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[start : start + used]).to(q.dtype)
    return out, lse


@pytest.mark.parametrize("num_rows", [1, 7, 8, 9])
def test_rows_as_many_as_heads_are_like_any_other(num_rows, monkeypatch):
    """Decode segments that share a prefix, so that two parts are merged by their log-sum-exps."""
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    segments = [QuerySegment(n, 1, 60 + n, 100 + 60 * n, 10, 50) for n in range(num_rows)]
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(700, 2, GEOMETRY.head_dim, generator=generator).bfloat16() for _ in "kv")
    queries = torch.randn(num_rows, 8, GEOMETRY.head_dim, generator=generator).bfloat16()
    outputs = []
    for attention, dtype in ((ExactAttention(GEOMETRY, CPU), torch.float32), (VarlenAttention(CPU), torch.bfloat16)):
        kv = KvArena(GEOMETRY, 700, "bf16", dtype, CPU)
        kv.write(0, torch.arange(700), keys.to(dtype), values.to(dtype))
        attention.plan(segments)
        outputs.append(attention.attend(0, queries.to(dtype), kv).float())
    assert (outputs[0] - outputs[1]).abs().max() <= 0.03


def test_it_is_tried_before_it_is_used(monkeypatch):
    assert not supports_varlen(GEOMETRY, CPU), "there is no such kernel for a CPU"
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    assert supports_varlen(GEOMETRY, CPU)
    assert not supports_varlen(replace(GEOMETRY, sliding_window=4096), CPU), (
        "only some rows may see the end of a prefix"
    )

    @functools.wraps(kernel)
    def transposed(*parts, **options):
        out, lse = kernel(*parts, **options)
        return out, lse.T

    monkeypatch.setattr(varlen, "varlen_attn", transposed)
    assert not supports_varlen(GEOMETRY, CPU), "another torch transposes it"
