"""Public test doubles: a tiny real checkpoint on disk, an engine without a model, a clock that stands still.

Only `write_tiny_checkpoint` imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rotary_batch.core import (
    Call,
    Completion,
    Import,
    Linked,
    NewTokens,
    ParsedFile,
    Request,
    StepReport,
    Symbol,
    SymbolId,
    Unit,
    ValueType,
)
from rotary_batch.model.tokens import Tokenizer, write_byte_tokenizer
from rotary_batch.repo.graph import calls
from rotary_batch.repo.resolve.resolver import Resolver
from rotary_batch.work.items import plan_chunks, plan_rollups
from rotary_batch.work.rows import PlanCounts, PlannedItem
from rotary_batch.work.store import WorkStore

TINY_CONFIG: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 320,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "max_position_embeddings": 1024,
    "sliding_window": None,
    "hidden_act": "silu",
    "bos_token_id": 256,
    "eos_token_id": 257,
}


class ByteCounter(Tokenizer):
    """Counts one token for each byte, without a model."""

    def __init__(self) -> None:
        pass

    def count_ranges(self, source: bytes) -> Callable[[int, int], int]:
        """A function that gives the size of a range."""
        return lambda start, end: end - start


class FrozenClock:
    """A clock that moves only when a test sets `now`."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class FakeEngine:
    """Implements `core.Engine` without a model: each answer is a function of the prompt alone."""

    def __init__(self, *, max_batch: int = 4, answer_tokens: int = 5, vocabulary: int = 250) -> None:
        self._max_batch = max_batch
        self._answer_tokens = answer_tokens
        self._vocabulary = vocabulary
        self._live: dict[int, tuple[Request, list[int]]] = {}

    @property
    def num_live(self) -> int:
        """How many admitted sequences are unfinished."""
        return len(self._live)

    def has_room(self, request: Request) -> bool:
        """Whether `admit` would accept the request now."""
        return len(self._live) < self._max_batch

    def admit(self, request: Request) -> None:
        """Accept a request."""
        self._live[request.request_id] = (request, list(request.generated_ids))

    def step(self) -> StepReport:
        """Add one token to every live sequence."""
        new_tokens, completions = [], []
        for request_id, (request, generated) in list(self._live.items()):
            generated.append(self._token(request, len(generated)))
            total = -0.25 * len(generated)
            new_tokens.append(NewTokens(request_id=request_id, token_ids=(generated[-1],), logprob_sum=total))
            if len(generated) >= min(self._answer_tokens, request.max_new_tokens):
                del self._live[request_id]
                completions.append(
                    Completion(
                        request_id=request_id,
                        token_ids=tuple(generated),
                        logprob_sum=total,
                        num_scored=len(generated),
                        reason="stop" if len(generated) < request.max_new_tokens else "length",
                    )
                )
        return StepReport(new_tokens=tuple(new_tokens), completions=tuple(completions), decode_tokens=len(new_tokens))

    def _token(self, request: Request, place: int) -> int:
        digest = hashlib.sha256(f"{request.prompt_ids} {place}".encode()).digest()
        return int.from_bytes(digest[:4], "big") % self._vocabulary

    def drop(self, request_ids: Collection[int]) -> None:
        """Forget live sequences."""
        for request_id in request_ids:
            self._live.pop(request_id, None)

    def close(self) -> None:
        """Forget everything."""
        self._live.clear()


def drain(
    engine: Any,  # noqa: ANN401 - a RotaryEngine, which would import torch
    requests: Sequence[Request],
) -> dict[int, tuple[tuple[int, ...], float]]:
    """Generate up to every request's limit, without stop tokens; request id -> (tokens, summed log-probability)."""
    engine.stop_ids = frozenset()
    results, waiting = {}, list(requests)
    while waiting or engine.num_live:
        while waiting and engine.has_room(waiting[0]):
            engine.admit(waiting.pop(0))
        for done in engine.step().completions:
            results[done.request_id] = (done.token_ids, done.logprob_sum)
    return results


def plan_items(
    store: WorkStore, repository_id: int, job: str, planned: Sequence[PlannedItem], changed_paths: set[str]
) -> PlanCounts:
    """Make the queue of one repository what is planned, in one transaction; `index` does this file by file.

    `planned` has all roll-ups, and the chunks of `changed_paths`; other chunks stay as they are.
    """
    by_path: dict[str, list[PlannedItem]] = {path: [] for path in sorted(changed_paths)}
    for item in planned:
        if item.subject.unit is Unit.CHUNK:
            by_path[item.subject.path].append(item)
    with store.transaction():
        counts = PlanCounts()
        for path, chunks in by_path.items():
            counts += plan_chunks(store, repository_id, job, path, chunks)
        rollups = [item for item in planned if item.subject.unit is not Unit.CHUNK]
        return counts + plan_rollups(store, repository_id, job, rollups)


def write_tiny_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    dtype: str = "bfloat16",
    num_shards: int = 1,
    new_spelling: bool = False,
    **config: Any,  # noqa: ANN401 - values of config.json
) -> Path:
    """Write a Hugging Face Mixtral checkpoint of random weights with a byte-level tokenizer; returns its folder.

    `config` overrides TINY_CONFIG; `new_spelling` writes `rope_parameters` and `dtype`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = TINY_CONFIG | config
    spelt = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "dtype": dtype}
    table |= spelt if new_spelling else {"rope_theta": 1e6, "torch_dtype": dtype}
    (folder / "config.json").write_text(json.dumps(table))
    write_byte_tokenizer(folder)
    _write_weights(folder, table, seed, dtype, num_shards)
    return folder


def _write_weights(folder: Path, table: dict[str, Any], seed: int, dtype: str, num_shards: int) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: (torch.randn(shape, generator=generator) * 0.1 + name.endswith("norm.weight")).to(getattr(torch, dtype))
        for name, shape in tensor_shapes(table).items()
    }
    names = list(weights)
    if num_shards == 1:
        save_file(weights, str(folder / "model.safetensors"))
        return
    files = {
        name: f"model-{place % num_shards + 1:05}-of-{num_shards:05}.safetensors" for place, name in enumerate(names)
    }
    for file in sorted(set(files.values())):
        save_file({name: weights[name] for name in names if files[name] == file}, str(folder / file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def tensor_shapes(table: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a checkpoint with this config.json."""
    hidden, middle = table["hidden_size"], table["intermediate_size"]
    head_dim = table.get("head_dim") or hidden // table["num_attention_heads"]
    q, kv = table["num_attention_heads"] * head_dim, table["num_key_value_heads"] * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (table["vocab_size"], hidden)}
    for layer in range(table["num_hidden_layers"]):
        stem = f"model.layers.{layer}."
        shapes |= {stem + "input_layernorm.weight": (hidden,), stem + "post_attention_layernorm.weight": (hidden,)}
        shapes |= {stem + f"self_attn.{n}_proj.weight": (s, hidden) for n, s in (("q", q), ("k", kv), ("v", kv))}
        shapes |= {stem + "self_attn.o_proj.weight": (hidden, q)}
        shapes |= {stem + "block_sparse_moe.gate.weight": (table["num_local_experts"], hidden)}
        for expert in range(table["num_local_experts"]):
            stem_expert = f"{stem}block_sparse_moe.experts.{expert}."
            shapes |= {stem_expert + f"{n}.weight": (middle, hidden) for n in ("w1", "w3")}
            shapes |= {stem_expert + "w2.weight": (hidden, middle)}
    shapes["model.norm.weight"] = (hidden,)
    if not table["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (table["vocab_size"], hidden)
    return shapes


class MemoryNames:
    """Implements `repo.resolve.meanings.Source` for files that were just parsed."""

    def __init__(self, files: Sequence[ParsedFile], manifests: Mapping[str, bytes]) -> None:
        self.languages = {one.file.path: one.file.language or "" for one in files}
        self.manifests = manifests
        self._files = {one.file.path: one for one in files}
        self._by_name: dict[str, list[Symbol]] = defaultdict(list)
        for symbol in (symbol for one in files for symbol in one.symbols):
            self._by_name[symbol.name].append(symbol)

    def facts(self, path: str) -> tuple[Sequence[Symbol], Sequence[Import], Sequence[ValueType]]:
        """What one file defines, imports, and says of types."""
        one = self._files[path]
        return one.symbols, one.imports, one.value_types

    def named(self, name: str, folder: str | None) -> list[Symbol]:
        """Symbols of a name directly in a folder, or anywhere."""
        return [one for one in self._by_name[name] if folder is None or one.path.rpartition("/")[0] == folder]

    def members_named(self, name: str, qualified_name: str, folder: str) -> list[Symbol]:
        """Symbols of a qualified name, or one that ends with it, below a folder."""
        below = [one for one in self._by_name[name] if not folder or one.path.startswith(f"{folder}/")]
        return [one for one in below if f".{one.qualified_name}".endswith(f".{qualified_name}")]


def resolve(files: Sequence[ParsedFile], manifests: Mapping[str, bytes] | None = None) -> tuple[Call, ...]:
    """Resolve all references of a repository at once: calls in the order of the references, each pair once."""
    resolver = Resolver(MemoryNames(files, manifests or {}))
    return tuple(calls(resolver, (reference for one in files for reference in one.references)))


def linked(pairs: Iterable[tuple[SymbolId, SymbolId]]) -> dict[SymbolId, Linked]:
    """What each symbol is linked with, in the order of the pairs."""
    groups: dict[SymbolId, list[SymbolId]] = defaultdict(list)
    for one, other in pairs:
        groups[one].append(other)
    return {one: Linked(others, len(others)) for one, others in groups.items()}
