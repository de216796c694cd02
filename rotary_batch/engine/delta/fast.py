"""The gated delta rule for many rows at once.

Decode rows of all sequences are computed on the states where they are: by compiled code, without it in one set of
operations.  Prompts are cut into
chunks of CHUNK_TOKENS tokens.  Within a chunk the rule is a triangular system (arXiv 2412.06464, section 3.3), solved
for all chunks of all prompts together; only what a state carries from chunk to chunk is computed in order.

N = chunks, C = tokens of a chunk, K = key heads, G = value heads of a key head, V = K * G, Dk and Dv = dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from rotary_batch.engine.delta.base import DeltaInputs, StateSegment
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.model.delta import DeltaShape

CHUNK_TOKENS = 64
# Of decode rows on a CPU: states that stay in its caches between the operations on them.
CPU_RUN_NBYTES = 4 * 2**20


class _Run(NamedTuple):
    """Decode rows of sequences whose states follow each other in the arena."""

    states: slice
    rows: torch.Tensor  # [states]


class _Prompts(NamedTuple):
    """Prompt rows of all sequences in chunks: first those that begin a segment, then the second ones, and so on."""

    rows: torch.Tensor  # [N, C] batch rows; padding is row 0
    is_token: torch.Tensor  # [N, C]
    states: torch.Tensor  # [sequences], the longest first
    num_active: list[int]  # sequences that have a chunk at each place


class FastDeltaRule:
    """The delta rule of one engine with fast numerics."""

    def __init__(self, shape: DeltaShape, device: torch.device, kernels: CpuKernels | None = None) -> None:
        """`kernels` are used on a CPU, where they have states."""
        self._shape = shape
        self._device = device
        has_states = kernels is not None and device.type == "cpu" and kernels.supports_states(shape.value_head_dim)
        self._kernels = kernels if has_states else None
        self._tokens = torch.empty(2, 0, dtype=torch.int64)  # decode rows and their states, for the kernels
        nbytes = shape.num_value_heads * shape.key_head_dim * shape.value_head_dim * 4
        self._run_size = max(1, CPU_RUN_NBYTES // nbytes) if device.type == "cpu" else 2**30
        self._runs: list[_Run] = []
        self._prompts: _Prompts | None = None

    def plan(self, segments: Sequence[StateSegment]) -> None:
        """Sort the segments of a step into runs of decode rows and chunks of prompts."""
        decoding = sorted((s for s in segments if s.num_rows == 1), key=lambda segment: segment.state)
        if self._kernels is not None:
            places = [s.first_row for s in decoding], [s.state for s in decoding]
            self._tokens = torch.tensor(places, dtype=torch.int64)
        else:
            self._runs = [self._run(part) for part in _consecutive(decoding, self._run_size)]
        prompts = sorted((s for s in segments if s.num_rows > 1), key=lambda segment: -segment.num_rows)
        self._prompts = self._chunked(prompts) if prompts else None

    def _run(self, segments: Sequence[StateSegment]) -> _Run:
        rows = torch.tensor([segment.first_row for segment in segments], device=self._device)
        return _Run(slice(segments[0].state, segments[-1].state + 1), rows)

    def _chunked(self, segments: Sequence[StateSegment]) -> _Prompts:
        size = min(CHUNK_TOKENS, segments[0].num_rows)
        longest = -(-segments[0].num_rows // size)
        first_rows = torch.tensor([segment.first_row for segment in segments])
        lengths = torch.tensor([segment.num_rows for segment in segments])
        places = torch.arange(longest * size).view(longest, 1, size)
        is_token = places < lengths[:, None]  # [longest, sequences, C]
        is_chunk = is_token[..., 0]
        rows = (places + first_rows[:, None]).masked_fill_(~is_token, 0)
        states = torch.tensor([segment.state for segment in segments])
        return _Prompts(
            rows[is_chunk].to(self._device),
            is_token[is_chunk].to(self._device),
            states.to(self._device),
            is_chunk.sum(1).tolist(),
        )

    def apply(self, inputs: DeltaInputs, recurrent: torch.Tensor) -> torch.Tensor:
        """Outputs [T, V, Dv]; updates `recurrent` [states, V, Dk, Dv]."""
        out = torch.empty_like(inputs.v)
        if self._kernels is not None and self._tokens.numel():
            decay = inputs.log_decay.exp()
            tensors = {"q": inputs.q, "k": inputs.k, "v": inputs.v, "decay": decay, "beta": inputs.beta}
            tensors = {name: part.contiguous() for name, part in tensors.items()}
            self._kernels.advance_states(tensors | {"states": recurrent, "out": out}, self._tokens)
        if self._runs:
            self._decode(inputs, recurrent, out)
        if self._prompts is not None:
            found = self._prefill(inputs, recurrent, self._prompts)
            out[self._prompts.rows[self._prompts.is_token]] = found[self._prompts.is_token]
        return out

    def _decode(self, inputs: DeltaInputs, recurrent: torch.Tensor, out: torch.Tensor) -> None:
        """One token of each run, in place.

        out = S_new^T q = decay * S^T q + (k . q) * new, so the state is read once for k and q together.
        """
        heads = self._shape.heads_per_key
        decay = inputs.log_decay.exp()[..., None]  # [T, V, 1]
        kq = torch.stack([inputs.k, inputs.q], 2).repeat_interleave(heads, 1)  # [T, V, 2, Dk]
        overlap = (inputs.k * inputs.q).sum(-1).repeat_interleave(heads, 1)[..., None]  # [T, V, 1]
        for run in self._runs:
            states, rows = recurrent[run.states], run.rows
            held, read = (torch.matmul(kq[rows], states) * decay[rows][..., None]).unbind(2)  # [rows, V, Dv]
            new = (inputs.v[rows] - held) * inputs.beta[rows][..., None]
            states.mul_(decay[rows][..., None])
            # as a product of matrices: 0.10 ms for 32 heads of 128 by 128, by addcmul 0.14
            states.flatten(0, 1).baddbmm_(kq[rows, :, 0].flatten(0, 1)[..., None], new.flatten(0, 1)[:, None])
            out[rows] = read + overlap[rows] * new

    def _prefill(self, inputs: DeltaInputs, recurrent: torch.Tensor, prompts: _Prompts) -> torch.Tensor:
        """Outputs [N, C, V, Dv] of chunked prompts; of padding they mean nothing."""
        chunks = _Chunks.prepare(inputs, prompts, self._shape)
        states = recurrent[prompts.states]
        out = torch.empty_like(chunks.values)
        begin = 0
        for active in prompts.num_active:
            part = slice(begin, begin + active)
            state = states[:active]
            new = chunks.values[part] - chunks.keys_to_state[part] @ state
            out[part] = chunks.queries[part] @ state + chunks.scores[part] @ new
            state.mul_(chunks.decay[part]).add_(chunks.keys[part].transpose(-1, -2) @ new)
            begin += active
        recurrent[prompts.states] = states
        return out.transpose(1, 2)


class _Chunks(NamedTuple):
    """What each chunk needs of its own tokens; only the state that it begins with is missing."""

    values: torch.Tensor  # [N, V, C, Dv] to write, if the state were empty
    keys_to_state: torch.Tensor  # [N, V, C, Dk] times the state: what of the values it holds already
    queries: torch.Tensor  # [N, V, C, Dk], decayed since the chunk began
    keys: torch.Tensor  # [N, V, C, Dk], decayed until the chunk ends
    scores: torch.Tensor  # [N, V, C, C] of queries and keys, decayed in between
    decay: torch.Tensor  # [N, V, 1, 1] of the state over the chunk

    @classmethod
    def prepare(cls, inputs: DeltaInputs, prompts: _Prompts, shape: DeltaShape) -> _Chunks:
        """Solve all chunks."""
        # padding: k = 0 and beta = 0 write nothing, log_decay = 0 keeps the state
        padding = ~prompts.is_token  # filled, not multiplied: row 0 may not be finite
        padded = (part[prompts.rows].masked_fill_(_like(padding, part), 0.0) for part in inputs)
        q, k, v, log_decay, beta = (part.transpose(1, 2) for part in padded)  # [N, heads, C, ...]
        total = log_decay.cumsum(-1)  # [N, V, C]
        decayed = total.exp()[..., None]
        between = (total[..., :, None] - total[..., None, :]).tril_().exp_().tril_()  # [N, V, C, C]
        heads = shape.heads_per_key
        system = _by_value_head(k @ k.transpose(-1, -2), heads) * between * beta[..., None]
        keys = _by_value_head(k, heads)
        wanted = torch.cat([v, keys * decayed], -1) * beta[..., None]
        solved = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
        values, keys_to_state = solved.split([shape.value_head_dim, shape.key_head_dim], -1)
        return cls(
            values,
            keys_to_state,
            _by_value_head(q, heads) * decayed,
            keys * (total[..., -1:] - total).exp()[..., None],
            _by_value_head(q @ k.transpose(-1, -2), heads) * between,
            total[..., -1, None, None].exp(),
        )


def _like(mask: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """[N, C] with as many dimensions as a part of the inputs has in chunks."""
    return mask.view(*mask.shape, *[1] * (part.dim() - 1))


def _by_value_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, K, ...] -> [N, V, ...]: each key head for all its value heads."""
    return x.repeat_interleave(heads, 1)


def _consecutive(segments: Sequence[StateSegment], most: int) -> Iterator[Sequence[StateSegment]]:
    """Cut segments, sorted by state, where their states do not follow each other, and into at most `most`."""
    begin = 0
    for end in range(1, len(segments) + 1):
        is_next = end < len(segments) and segments[end].state == segments[end - 1].state + 1
        if not is_next or end - begin == most:
            yield segments[begin:end]
            begin = end
