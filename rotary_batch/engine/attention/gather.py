"""Fast attention in plain torch, for every device.

Decode rows are computed in batches of sequences whose contexts have similar lengths.  The query heads that share a KV
head are folded into rows, which is 10 times faster than the naive call on a CPU.  Prefill chunks have enough rows and
are computed one by one.  When several sequences share a prefix, their decode rows attend to its one copy together, and
the two parts are merged by their log-sum-exps (arXiv 2402.05099).

B = sequences of a batch, P = rows of a sequence, G = query heads of a KV head, D = head dimension, Dv = numbers of a
value, S = KV tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F

from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.kernels.threads import threads_for
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry

DECODE_ROWS = 8  # segments with at most N rows are computed in batches
BATCH_SEQUENCES = 16  # 3.4 ms for 128 sequences in batches of 16, 6.0 ms in batches of 64 (caches)
MIN_SHARERS = 4  # with N sequences or more, one pass over the shared prefix is faster than gathering it for each


@dataclass(frozen=True, slots=True)
class DecodeBatch:
    """Decode rows of several sequences."""

    rows: torch.Tensor  # [B, P] batch rows; a sequence with fewer rows repeats its last
    kv_indices: torch.Tensor  # [B * S] where the KV is in the arena; padding repeats the last index
    mask: torch.Tensor  # [B, 1, P * G, S] added to scores


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Consecutive prompt tokens of one sequence."""

    rows: slice
    kv_indices: torch.Tensor  # [S]
    mask: torch.Tensor | None  # [rows, S] added to scores; None = causal


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A prefix, and the decode rows that attend to it separately from their own KV."""

    rows: torch.Tensor  # [rows]
    kv_indices: torch.Tensor  # [S]


class GatherAttention:
    """Attention of one engine in plain torch."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype, device: torch.device) -> None:
        self._groups = geometry.num_heads // geometry.num_kv_heads
        self._window = geometry.sliding_window
        self._has_sinks = geometry.attention_sinks
        self._value_dim = geometry.value_dim
        self._dtype = dtype
        self._device = device
        self._decode_batches: list[DecodeBatch] = []
        self._prefill_chunks: list[PrefillChunk] = []
        self._shared_prefixes: list[SharedPrefix] = []

    def plan(self, segments: Sequence[QuerySegment]) -> None:
        """Sort the segments of a step into decode batches, prefill chunks and shared prefixes."""
        self._prefill_chunks = [self._prefill_chunk(segment) for segment in segments if segment.num_rows > DECODE_ROWS]
        self._decode_batches, self._shared_prefixes = [], []
        decoding = [segment for segment in segments if segment.num_rows <= DECODE_ROWS]
        for (start, length), group in groupby(sorted(decoding, key=_prefix), key=_prefix):
            sharers = list(group)
            is_shared = bool(length) and len(sharers) >= MIN_SHARERS and self._window is None
            if is_shared:
                rows = torch.tensor([row for segment in sharers for row in segment.rows()])
                prefix = SharedPrefix(self._to_device(rows), self._to_device(torch.arange(start, start + length)))
                self._shared_prefixes.append(prefix)
            self._decode_batches += self._batches(sharers, skip=length if is_shared else 0)

    def _batches(self, segments: Iterable[QuerySegment], skip: int) -> Iterator[DecodeBatch]:
        """Batches of similar segments, which leave out the first `skip` tokens of their contexts."""
        similar = sorted(segments, key=lambda segment: (segment.num_rows > 1, segment.num_kv_tokens))
        for begin in range(0, len(similar), BATCH_SEQUENCES):
            yield self._batch(similar[begin : begin + BATCH_SEQUENCES], skip)

    def _batch(self, segments: Sequence[QuerySegment], skip: int) -> DecodeBatch:
        width = max(segment.num_rows for segment in segments)
        num_kv_tokens = max(segment.num_kv_tokens for segment in segments) - skip
        rows = torch.empty(len(segments), width, dtype=torch.int64)
        kv_indices = torch.empty(len(segments), num_kv_tokens, dtype=torch.int64)
        for n, segment in enumerate(segments):
            indices = torch.tensor(segment.kv_indices(segment.num_kv_tokens)[skip:])
            kv_indices[n, : len(indices)] = indices
            kv_indices[n, len(indices) :] = indices[-1]
            rows[n] = torch.arange(width).clamp_max(segment.num_rows - 1) + segment.first_row
        offsets = torch.tensor([segment.first_position - segment.first_row for segment in segments])
        positions = rows + offsets[:, None]
        mask = self._mask(positions[:, :, None], skip, num_kv_tokens).repeat_interleave(self._groups, 1)[:, None]
        return DecodeBatch(self._to_device(rows), self._to_device(kv_indices.flatten()), self._to_device(mask))

    def _prefill_chunk(self, segment: QuerySegment) -> PrefillChunk:
        num_kv_tokens = segment.num_kv_tokens
        kv_indices = self._to_device(torch.tensor(segment.kv_indices(num_kv_tokens)))
        is_causal = segment.first_position == 0 and (self._window is None or num_kv_tokens <= self._window)
        is_causal = is_causal and not self._has_sinks  # their log-sum-exps need a mask
        positions = torch.tensor(segment.positions())[:, None]
        mask = None if is_causal else self._to_device(self._mask(positions, 0, num_kv_tokens))
        return PrefillChunk(slice(segment.first_row, segment.first_row + segment.num_rows), kv_indices, mask)

    def _mask(self, positions: torch.Tensor, skip: int, num_kv_tokens: int) -> torch.Tensor:
        """[..., num_kv_tokens]: 0 where a row at position [..., 1] sees token skip + n, else -inf."""
        kv_positions = torch.arange(skip, skip + num_kv_tokens)
        hidden = kv_positions > positions
        if self._window is not None:
            hidden |= kv_positions <= positions - self._window
        return torch.zeros(hidden.shape, dtype=self._dtype).masked_fill_(hidden, float("-inf"))

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device)

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, Dv]; `sinks` [heads]."""
        out = queries.new_empty(*queries.shape[:2], self._value_dim)
        lse = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)
        for chunk in self._prefill_chunks:
            with threads_for(len(chunk.kv_indices) * queries[chunk.rows, :, 0].numel()):  # scores
                if self._has_sinks:
                    out[chunk.rows], lse[chunk.rows] = self._attend_chunk_with_lse(layer, queries, kv, chunk)
                else:
                    out[chunk.rows] = self._attend_chunk(layer, queries, kv, chunk)
        for batch in self._decode_batches:
            with threads_for(len(batch.kv_indices) * queries[0].numel()):
                out[batch.rows], lse[batch.rows] = self._attend_batch(layer, queries, kv, batch)
        for prefix in self._shared_prefixes:
            rows = prefix.rows
            with threads_for(len(prefix.kv_indices) * len(rows) * queries.shape[1]):
                prefix_out, prefix_lse = self._attend_prefix(layer, queries, kv, prefix)
                out[rows] = merge_states(out[rows], lse[rows], prefix_out, prefix_lse)
                lse[rows] = torch.logaddexp(lse[rows], prefix_lse)
        return out if sinks is None else (out * torch.sigmoid(lse - sinks.float())[..., None]).to(out.dtype)

    def _attend_chunk(self, layer: int, queries: torch.Tensor, kv: KvArena, chunk: PrefillChunk) -> torch.Tensor:
        """Output [rows, heads, Dv]."""
        k, v = (part.transpose(0, 1)[None] for part in kv.gather(layer, chunk.kv_indices, queries.dtype))
        q = queries[chunk.rows].transpose(0, 1)[None]
        is_narrow = v.shape[-1] < k.shape[-1]
        if is_narrow:  # one key for all heads: CUDA's kernel for such values has no grouped queries
            k, v = (part.expand(-1, q.shape[1], -1, -1) for part in (k, _as_wide(v, k)))
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=chunk.mask, is_causal=chunk.mask is None, enable_gqa=not is_narrow
        )
        return out[0].transpose(0, 1)[..., : self._value_dim]

    def _attend_chunk_with_lse(
        self, layer: int, queries: torch.Tensor, kv: KvArena, chunk: PrefillChunk
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [rows, heads, Dv] and log-sum-exp [rows, heads]."""
        k, v = (
            part.transpose(0, 1).repeat_interleave(self._groups, 0)[None]
            for part in kv.gather(layer, chunk.kv_indices, queries.dtype)
        )
        out, lse = attend_with_lse(queries[chunk.rows].transpose(0, 1)[None], k, v, chunk.mask)
        return out[0].transpose(0, 1), lse[0].transpose(0, 1)

    def _attend_batch(
        self, layer: int, queries: torch.Tensor, kv: KvArena, batch: DecodeBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [B, P, heads, Dv] and log-sum-exp [B, P, heads]."""
        num_sequences, width = batch.rows.shape
        heads, head_dim = queries.shape[1:]
        q = queries[batch.rows].view(num_sequences, width, -1, self._groups, head_dim).transpose(1, 2)
        q = q.reshape(num_sequences, -1, width * self._groups, head_dim)
        k, v = (
            part.view(num_sequences, -1, *part.shape[1:]).transpose(1, 2)
            for part in kv.gather(layer, batch.kv_indices, queries.dtype)
        )
        out, lse = attend_with_lse(q, k, v, batch.mask)
        out = out.view(num_sequences, -1, width, self._groups, self._value_dim).transpose(1, 2)
        lse = lse.view(num_sequences, -1, width, self._groups).transpose(1, 2)
        return out.reshape(num_sequences, width, heads, self._value_dim), lse.reshape(num_sequences, width, heads)

    def _attend_prefix(
        self, layer: int, queries: torch.Tensor, kv: KvArena, prefix: SharedPrefix
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [rows, heads, Dv] and log-sum-exp [rows, heads]."""
        heads, head_dim = queries.shape[1:]
        num_rows = len(prefix.rows)
        q = queries[prefix.rows].view(num_rows, -1, self._groups, head_dim).transpose(0, 1)
        k, v = (part.transpose(0, 1)[None] for part in kv.gather(layer, prefix.kv_indices, queries.dtype))
        out, lse = attend_with_lse(q.reshape(1, -1, num_rows * self._groups, head_dim), k, v, None)
        out = out.view(-1, num_rows, self._groups, self._value_dim).transpose(0, 1)
        lse = lse.view(-1, num_rows, self._groups).transpose(0, 1)
        return out.reshape(num_rows, heads, self._value_dim), lse.reshape(num_rows, heads)


def _prefix(segment: QuerySegment) -> tuple[int, int]:
    return segment.prefix_start, segment.prefix_tokens


def attend_with_lse(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, heads, R, D], k [B, heads, S, D], v [B, heads, S, Dv] -> [B, heads, R, Dv], log-sum-exp [B, heads, R].

    `mask` is added to the scores.
    """
    if q.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, _as_wide(v, k), attn_mask=mask)
        return out[..., : v.shape[-1]], lse
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse


def _as_wide(v: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Values with zeros up to the width of keys, which the kernel of a CPU needs."""
    missing = k.shape[-1] - v.shape[-1]
    return F.pad(v, (0, missing)) if missing and v.device.type == "cpu" else v


def merge_states(
    out: torch.Tensor, lse: torch.Tensor, other_out: torch.Tensor, other_lse: torch.Tensor
) -> torch.Tensor:
    """Outputs [rows, heads, D] over two parts of the KV, with log-sum-exps [rows, heads] -> the output over both."""
    weight = torch.sigmoid(other_lse - lse)[..., None]
    out_f32 = out.float()
    return (out_f32 + weight * (other_out.float() - out_f32)).to(out.dtype)
