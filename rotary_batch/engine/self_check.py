"""Compare a new pack with the checkpoint that it was made from, by what both compute.

One prompt goes through the first layers, and through a small model as a whole, twice: with the bytes of the pack, and
with weights that are read from the checkpoint and dequantised to float32 first.  In exact numerics both give the same
logits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

from rotary_batch.core import ExpertKey
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.exact import ExactAttention
from rotary_batch.engine.decoder import Decoder
from rotary_batch.engine.delta.base import StateSegment
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.kernels.grouped import HeldExperts
from rotary_batch.engine.kernels.matrices import Matrix, num_columns, num_rows
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import dequantise, matrix_from
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.offload.slab import Slab, slab_views
from rotary_batch.engine.packs.checkpoint import Checkpoint
from rotary_batch.engine.packs.encoding import encoded
from rotary_batch.engine.packs.tensors import Source, read_bytes
from rotary_batch.engine.packs.writer import slab_bytes
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.weights import Weights
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import DENSE_NAME, EXACT_MAX_NBYTES, EXPERTS_NAME, Manifest
from rotary_batch.model.slabs import expert_shapes, matrix_parts

PROMPT_TOKENS = 12
MAX_DIFFERENCE = 1e-5  # of the largest logit
_CPU = torch.device("cpu")


def self_check(checkpoint: Checkpoint, pack_dir: Path, manifest: Manifest) -> None:
    """Raise ModelError when a pack does not compute what its checkpoint does."""
    model = checkpoint.geometry
    first = max(model.moe_layers[0], model.kv_layers[0]) + 1  # one with experts, one with attention
    whole = model.num_layers if manifest.experts_nbytes <= EXACT_MAX_NBYTES else first
    for num_layers in sorted({first, whole}):
        geometry = model.first_layers(num_layers)
        packed = _logits(geometry, _packed_dense(pack_dir, manifest), _packed_experts(pack_dir, manifest))
        wanted = _logits(geometry, _checkpoint_dense(checkpoint, manifest), _checkpoint_experts(checkpoint, manifest))
        difference, largest = (packed - wanted).abs().max(), wanted.abs().max()
        if not difference <= MAX_DIFFERENCE * largest:  # also where one is not a number
            raise ModelError(
                f"{pack_dir}: after {num_layers} layers its logits differ from the checkpoint's by {difference:.3g}, "
                f"the largest is {largest:.3g}; please report this with the name of the model"
            )


@torch.inference_mode()
def _logits(geometry: Geometry, dense: Mapping[str, Matrix], experts: Callable[[ExpertKey], Slab]) -> torch.Tensor:
    """float32 logits [1, vocabulary] after the last of a few tokens."""
    numerics = Numerics("exact", _CPU)
    kv = KvArena(geometry, PROMPT_TOKENS, "bf16", torch.float32, _CPU)
    windows = {geometry.window(layer) for layer in geometry.kv_layers}
    attentions = {window: ExactAttention(geometry.with_window(window), _CPU) for window in windows}
    states, state_segments = None, list[StateSegment]()
    if geometry.delta is not None:
        states = StateArena(geometry.delta, len(geometry.delta_layers), 1, _CPU)
        state_segments = [StateSegment(0, PROMPT_TOKENS, states.allocate().index)]
    decoder = Decoder(Weights(geometry, dense, numerics), _Lent(experts), attentions, PROMPT_TOKENS, Trace(), states)
    token_ids = torch.arange(PROMPT_TOKENS) * 7919 % geometry.vocab_size  # a prime: all over the vocabulary
    hidden = decoder.forward(token_ids, [QuerySegment(0, PROMPT_TOKENS, 0, 0)], kv, state_segments)
    return decoder.logits(hidden[-1:])


class _Lent:
    """Lends each expert when it is wanted; nothing is kept."""

    wants_predictions = False
    is_resident = False

    def __init__(self, experts: Callable[[ExpertKey], Slab]) -> None:
        self._experts = experts

    def begin_step(self, num_rows: int) -> None:
        """Nothing to prepare."""

    def expect(self, needed: Sequence[ExpertKey], predicted: Sequence[ExpertKey]) -> None:
        """Nothing to load."""

    def take_prefetch_feedback(self) -> tuple[int, int]:
        """Nothing is predicted."""
        return 0, 0

    @contextmanager
    def hold(self, key: ExpertKey) -> Iterator[Slab]:
        """Read an expert."""
        yield self._experts(key)

    def lend_groups(self, layer: int, keys: Sequence[ExpertKey]) -> Generator[HeldExperts, None, None]:
        """Exact numerics compute experts one by one."""
        raise NotImplementedError

    @property
    def residents(self) -> Mapping[ExpertKey, Slab]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing is open."""


class _Loaded(Mapping[str, Matrix]):
    """Dense matrices that are loaded at each use: few are needed, and a model's may not fit into memory in float32."""

    def __init__(self, names: Sequence[str], load: Callable[[str], Matrix]) -> None:
        self._names = dict.fromkeys(names)
        self._load = load

    def __getitem__(self, name: str) -> Matrix:
        if name not in self._names:
            raise KeyError(name)
        return self._load(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _packed_dense(pack_dir: Path, manifest: Manifest) -> Mapping[str, Matrix]:
    shapes = manifest.geometry.dense_shapes()

    def load(name: str) -> Matrix:
        stored_as, shape = manifest.dense_stored(name), shapes[name]
        suffixes = [""]
        if stored_as != "bf16":
            suffixes = [part.suffix for part in matrix_parts(stored_as, shape[0], shape[1], "BF16")]
        with safe_open(str(pack_dir / DENSE_NAME), framework="pt") as file:
            parts = {suffix: file.get_tensor(name + suffix) for suffix in suffixes}
        return matrix_from(parts, shape[0], stored_as)

    return _Loaded(list(shapes), load)


def _checkpoint_dense(checkpoint: Checkpoint, manifest: Manifest) -> Mapping[str, Matrix]:
    return _Loaded(
        list(checkpoint.dense), lambda name: _in_float32(checkpoint.dense[name], manifest.dense_stored(name))
    )


def _packed_experts(pack_dir: Path, manifest: Manifest) -> Callable[[ExpertKey], Slab]:
    def read(key: ExpertKey) -> Slab:
        raw = read_bytes(slab_bytes(pack_dir / EXPERTS_NAME, manifest.slabs[key]))
        return slab_views(torch.frombuffer(raw, dtype=torch.uint8), manifest, key.layer)

    return read


def _checkpoint_experts(checkpoint: Checkpoint, manifest: Manifest) -> Callable[[ExpertKey], Slab]:
    def read(key: ExpertKey) -> Slab:
        expert, stored = checkpoint.experts[key], manifest.stored(key.layer)
        matrices = {name: _in_float32(expert[name], stored[name]) for name in expert_shapes(manifest.geometry, stored)}
        gate_up = tuple(matrices[name] for name in ("gate_up", "gate", "up") if name in matrices)
        biases = [_bias(expert.get(f"{name}.bias")) for name in ("gate_up", "down")]
        return Slab(gate_up, matrices["down"], *biases)

    return read


def _bias(source: Source | None) -> torch.Tensor | None:
    return None if source is None else encoded(source, source.stored_as)[""].float()


def _in_float32(source: Source, stored_as: str) -> torch.Tensor:
    """A tensor of a checkpoint as the pack stores it, dequantised."""
    parts = encoded(source, stored_as)
    if stored_as == "bf16":
        return parts[""].float()
    matrix = matrix_from(parts, source.shape[0], stored_as)
    return dequantise(matrix, torch.empty(num_rows(matrix), num_columns(matrix)))
